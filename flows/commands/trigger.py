"""Commands for Prefect deployments: trigger, serve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from distill_core.errors import ConfigError
from flows.commands.options import (
    DEFAULT_DEPLOYMENT,
    DEFAULT_STORE,
    AsJson,
    DeployedStore,
    DeploymentName,
    FailedOnly,
    NewName,
    Overrides,
    PlacementOptions,
    Set,
    ShardList,
    StoreUrl,
    grouped,
)

if TYPE_CHECKING:
    from flows.orchestration.parameters import Parameters


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
        typer.Option(metavar="RUN", help="Resume this run instead of starting one of a preset."),
    ] = None
    name: NewName = None
    shards: ShardList = None
    failed_only: FailedOnly = False

    def flow_and_parameters(self) -> tuple[str, Parameters]:
        """Return the name of the flow and its parameters.

        Raises:
            ConfigError: options that exclude each other, an unknown preset or key, a value out of
                range, or wrong shard numbers.
        """
        from flows.runs.shard_selection import parse_numbers

        if self.shards is not None:
            parse_numbers(self.shards)
        if (self.preset is None) == (self.resume is None):
            raise ConfigError("trigger: expected either a preset or --resume RUN, and not both.")
        if self.preset is None:
            return "resume", self._resumed()
        return "distill", self._distilled(self.preset)

    def _distilled(self, preset: str) -> Parameters:
        from flows.orchestration.parameters import of_config, resolved

        if self.failed_only:
            raise ConfigError(
                "--failed-only: goes with --resume RUN only; a new run has no failed shards."
            )
        config = resolved(preset, [*(self.overrides or []), *(self.set_ or [])])
        return {**of_config(config), "run": self.name, "shards": self.shards}

    def _resumed(self) -> Parameters:
        if self.overrides or self.set_ or self.name:
            raise ConfigError(
                f"--resume {self.resume}: the config and the name of a run cannot be changed. "
                "Leave out KEY=VALUE, --set and --name."
            )
        return {"run": self.resume, "failed_only": self.failed_only, "shards": self.shards}


@grouped
def trigger(
    request: RequestOptions,
    placement: PlacementOptions,
    store: DeployedStore = None,
    deployment: DeploymentName = DEFAULT_DEPLOYMENT,
    as_json: AsJson = False,
) -> None:
    """Start a run on a Prefect deployment.

    The config is resolved on this machine; the run takes place where the deployment runs.
    """
    from flows import terminal
    from flows.orchestration import deployments

    flow, parameters = request.flow_and_parameters()
    parameters |= placement.parameters(store)
    flow_run = deployments.trigger(flow, parameters, deployment=deployment)
    if as_json:
        terminal.print_json(asdict(flow_run))
    else:
        terminal.print_lines(
            f"flow run: {flow_run.id} ({flow_run.name})", f"page:     {flow_run.url}"
        )


@grouped
def serve(
    placement: PlacementOptions,
    store: StoreUrl = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of runs at the same time.")] = 1,
    pause_on_shutdown: Annotated[
        bool, typer.Option("--pause-on-shutdown", help="Pause the schedules when this ends.")
    ] = False,
    deployment: DeploymentName = DEFAULT_DEPLOYMENT,
) -> None:
    """Serve the deployments distill, resume and redistill from this machine, until stopped."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.orchestration import deployments

    defaults = placement.parameters(Store(store).url)
    flows = ", ".join(deployments.FLOWS)
    terminal.print_lines(f"serving {flows} as {deployment}; store: {defaults['store']}")
    deployments.serve(
        defaults, deployment=deployment, limit=limit, pause_on_shutdown=pause_on_shutdown
    )
