"""Commands for Prefect deployments: trigger, serve."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from distill_core.errors import ConfigError
from flows.commands.options import (
    DEFAULT_STORE,
    AsJson,
    DeployedStore,
    Group,
    NewName,
    Overrides,
    PlacementOptions,
    Set,
    StoreUrl,
    checked,
    grouped,
)
from flows.commands.selected import AndLater, FailedOnly, ShardList

if TYPE_CHECKING:
    from flows.orchestration.parameters import Parameters


@dataclass(frozen=True)
class Request:
    """A request to a deployment."""

    flow: str
    run: str  # its name
    parameters: Parameters
    local: Mapping[str, str]  # paths of this machine, by key


@dataclass(frozen=True)
class RequestOptions:
    """The run that a deployment is asked for: a new one of a preset, or one to resume."""

    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="[PRESET]", help="Name of a shipped preset, or path of a .yaml file."
        ),
    ] = None
    overrides: Overrides = None
    set_: Set = None
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            callback=checked("run"),
            help="Resume this run instead of starting one of a preset.",
        ),
    ] = None
    name: NewName = None
    shards: ShardList = None
    and_later: AndLater = False
    failed_only: FailedOnly = False

    def request(self) -> Request:
        """Return the flow and its parameters.

        Raises:
            ConfigError: options that exclude each other, an unknown preset or key, a value out of
                range, or wrong shard numbers.
        """
        from flows.runs.shard_selection import check_numbers

        check_numbers(self.shards, and_later=self.and_later)
        if (self.preset is None) == (self.resume is None):
            raise ConfigError("trigger: expected either a preset or --resume RUN, and not both.")
        if self.preset is None:
            return self._resumed(str(self.resume))
        return self._distilled(self.preset)

    def _distilled(self, preset: str) -> Request:
        from flows.orchestration.parameters import of_config, resolved, with_absolute_paths
        from flows.runs.argument import check_is_config
        from tasks.run import default_name

        check_is_config(
            preset,
            command="trigger",
            reason="the machine that runs it may not see the dataset, whose facts choose the sizes",
        )
        if self.failed_only:
            raise ConfigError(
                "--failed-only: goes with --resume RUN only; a new run has no failed shards."
            )
        changes = [*(self.overrides or []), *(self.set_ or [])]
        config, local = with_absolute_paths(resolved(preset, changes))
        parameters = {**of_config(config), "run": self.name, **self._selected()}
        return Request("distill", self.name or default_name(config), parameters, local)

    def _resumed(self, run: str) -> Request:
        if self.overrides or self.set_ or self.name:
            raise ConfigError(
                f"--resume {self.resume}: the config and the name of a run cannot be changed. "
                "Leave out KEY=VALUE, --set and --name."
            )
        parameters = {"run": run, "failed_only": self.failed_only, **self._selected()}
        return Request("resume", run, parameters, {})

    def _selected(self) -> Parameters:
        return {"shards": self.shards, "and_later": self.and_later}


@grouped
def trigger(
    request: RequestOptions,
    placement: PlacementOptions,
    store: DeployedStore = None,
    deployment: Group = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for the end of the run, and exit as the run does."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run on a Prefect deployment.

    The config is resolved on this machine; the run takes place where the deployment runs.
    """
    from flows import terminal
    from flows.orchestration import deployments

    requested = request.request()
    parameters = requested.parameters | placement.parameters(store)
    flow_run = deployments.trigger(requested.flow, parameters, run=requested.run, group=deployment)
    if as_json:
        terminal.print_json(asdict(flow_run))
    else:
        terminal.print_lines(
            f"flow run: {flow_run.id} ({flow_run.name}) of {flow_run.deployment}",
            f"page:     {flow_run.url}",
        )
    warn_of_local(requested.local, store)
    if flow_run.problem is not None:
        terminal.warn(f"{flow_run.problem}; until then the run waits.")
    if wait:
        sys.exit(_wait_for(flow_run.id))


def _wait_for(flow_run: str) -> int:
    """Wait for a flow run, with a line per state and stage on stderr, and return its status."""
    from flows.orchestration import waiting

    def show(line: str) -> None:
        print(f"distill: {line}", file=sys.stderr, flush=True)

    try:
        return waiting.wait(flow_run, show)
    except KeyboardInterrupt:
        show(
            f"stopped waiting; the flow run {flow_run} is not affected. Cancel it with "
            f"`prefect flow-run cancel {flow_run}`."
        )
        return 130


def warn_of_local(local: Mapping[str, str], store: str | None) -> None:
    """Warn that another machine may not see the folders of this one.

    Args:
        local: paths by key of the config.
        store: address, or None.
    """
    from distill_core.storage.store import Store
    from flows import terminal

    paths = [f"{key} = {path}" for key, path in local.items()]
    if store is not None and "://" not in (url := Store(store).url):
        paths.append(f"store = {url}")
    if paths:
        terminal.warn(
            f"{', '.join(paths)}: local paths. The machine that runs this has to see the same "
            "files under them."
        )


@grouped
def serve(
    placement: PlacementOptions,
    store: StoreUrl = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of runs at the same time.")] = 1,
    pause_on_shutdown: Annotated[
        bool, typer.Option("--pause-on-shutdown", help="Pause the schedules when this ends.")
    ] = False,
    deployment: Group = None,
) -> None:
    """Serve the deployments distill, resume and redistill from this machine, until stopped."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.orchestration import deployments

    defaults = placement.parameters(Store(store).url)
    names = (
        f"{flow}/{deployments.deployment_name(flow, deployment)}" for flow in deployments.FLOWS
    )
    terminal.print_lines(f"serving {', '.join(names)}; store: {defaults['store']}")
    deployments.serve(defaults, group=deployment, limit=limit, pause_on_shutdown=pause_on_shutdown)
