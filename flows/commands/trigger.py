"""Commands that leave the work to a Prefect deployment: trigger, serve."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Unpack

import typer

from distill_core.errors import ConfigError
from flows.runs.options import (
    DEFAULT_DEPLOYMENT,
    DEFAULT_STORE,
    AsJson,
    DeployedStore,
    DeploymentName,
    FailedOnly,
    How,
    Overrides,
    Set,
    ShardList,
    StoreUrl,
    execution,
    with_how,
)

if TYPE_CHECKING:
    from flows.orchestration.deployments import Parameters


@with_how
def trigger(
    preset: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="A preset, or a .yaml file.")
    ] = None,
    overrides: Overrides = None,
    set_: Set = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Resume this run; instead of a preset.")
    ] = None,
    store: DeployedStore = None,
    name: Annotated[str | None, typer.Option(help="Default: preset and config hash.")] = None,
    shards: ShardList = None,
    failed_only: FailedOnly = False,
    deployment: DeploymentName = DEFAULT_DEPLOYMENT,
    as_json: AsJson = False,
    **how: Unpack[How],
) -> None:
    """Ask a Prefect deployment for a run: the config is resolved here, the work done there."""
    from flows import terminal
    from flows.orchestration import deployments
    from flows.runs.shard_selection import parse_numbers

    if shards is not None:
        parse_numbers(shards)
    if (preset is None) == (resume is None):
        raise ConfigError("trigger: say a preset, or --resume RUN, and not both.")
    changes = [*(overrides or []), *(set_ or [])]
    if resume is not None:
        flow, said = "resume", resumed(resume, changes, name, failed_only)
    else:
        flow, said = "distill", distilled(str(preset), changes, name, failed_only)
    said |= {"shards": shards, **said_where(store, how)}
    asked = deployments.ask(flow, said, name=deployment)
    if as_json:
        terminal.say_json(asdict(asked))
    else:
        terminal.say(f"flow run: {asked.id} ({asked.name})", f"page:     {asked.url}")


def distilled(preset: str, changes: list[str], name: str | None, failed_only: bool) -> Parameters:
    """Return the parameters of a new run.

    Raises:
        ConfigError: an unknown preset or key, a value out of range, or --failed-only.
    """
    from flows.orchestration.deployments import of_config
    from flows.orchestration.parameters import resolved

    if failed_only:
        raise ConfigError("--failed-only: goes with --resume RUN; a new run has no failed shards.")
    return {**of_config(resolved(preset, changes)), "run": name}


def resumed(run: str, changes: list[str], name: str | None, failed_only: bool) -> Parameters:
    """Return the parameters of a run to be resumed.

    Raises:
        ConfigError: changes to a config that stands in the store, or a second name.
    """
    if changes or name:
        raise ConfigError(f"--resume {run}: its config and name stand; only --shards narrows it.")
    return {"run": run, "failed_only": failed_only}


def said_where(store: str | None, how: How) -> Parameters:
    """Return the store and the ways to run that were said; the rest is the deployment's.

    Raises:
        ConfigError: not a store, or a value out of range.
    """
    execution(store or DEFAULT_STORE, how)
    said: Parameters = {
        "execution": {key: value for key, value in how.items() if value is not None}
    }
    return said | ({"store": store} if store else {})


@with_how
def serve(
    store: StoreUrl = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Runs at a time, over all of them.")] = 1,
    pause_on_shutdown: Annotated[
        bool, typer.Option("--pause-on-shutdown", help="Pause the schedules when this ends.")
    ] = False,
    deployment: DeploymentName = DEFAULT_DEPLOYMENT,
    **how: Unpack[How],
) -> None:
    """Serve the deployments distill, resume and redistill from this machine, until stopped."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.orchestration import deployments

    own = said_where(Store(store).url, how)
    terminal.say(f"serving {', '.join(deployments.FLOWS)} as {deployment}; store: {own['store']}")
    deployments.serve(own, name=deployment, limit=limit, pause_on_shutdown=pause_on_shutdown)
