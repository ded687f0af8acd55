"""Commands that run stages: run, resume, redistill, demo."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from distill_core.errors import (
    ClusterError,
    MissingDataError,
    RunIncomplete,
    ShardsFailed,
    StorageError,
)
from distill_core.redaction import sanitised
from flows.commands import submit
from flows.commands.options import (
    DEFAULT_STORE,
    AsJson,
    ConfigOptions,
    DryRun,
    ImageNetDemo,
    NewName,
    Overrides,
    PlacementOptions,
    RunName,
    SeriesOptions,
    Source,
    StoreUrl,
    grouped,
)
from flows.commands.selected import SelectionOptions

if TYPE_CHECKING:
    from distill_core.config.schema import RunConfig
    from flows.runs.shard_selection import ShardSelection
    from flows.status.status import RunStatus
    from tasks.execution import Execution
    from tasks.run import Run


@grouped
def run(
    preset: Source,
    placement: PlacementOptions,
    overrides: Overrides = None,
    store: StoreUrl = DEFAULT_STORE,
    name: NewName = None,
    dry_run: DryRun = False,
) -> None:
    """Distil a dataset, e.g. `distill run digits-demo ipc=10 --local` or `distill run FOLDER`.

    For your own images, the method and all sizes are chosen; `distill init` writes them to a file.
    Run it again and finished work is skipped.
    """
    from distill_core.data.detection.resolve import resolve_run
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.runs import preflight
    from flows.runs.argument import load_requested
    from tasks.run import planned_run

    execution = placement.execution(store)
    if execution.submit is not None:
        submit.refuse({"--dry-run": dry_run})
        submit.submit_config(preset, overrides or [], placement, store, command="run", run=name)
        return
    requested = load_requested(preset, overrides or [], execution)
    config = requested.config
    terminal.print_lines(*requested.lines)
    if dry_run:
        config = resolve_run(config, notice=terminal.print_lines)
        planned = planned_run(config, Store(store), name)
        preflight.check(planned, execution)
        show_intents(planned, {}, allow_missing=execution.allow_missing)
        return
    start(config, name, execution)


@grouped
def resume(
    run: RunName,
    placement: PlacementOptions,
    selected: SelectionOptions,
    store: StoreUrl = DEFAULT_STORE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compute the missing shards of a run, e.g. `distill resume RUN --failed-only`.

    With --shards, stages that come after the selected shards are not started.
    """
    from distill_core.storage.store import Store
    from flows.runs import preflight
    from tasks.run import open_run

    execution = placement.execution(store)
    if execution.submit is not None:
        submit.refuse({"--dry-run": dry_run, "--json": as_json})
        submit.submit(placement, store, command="resume", run=run, **asdict(selected))
        return
    opened = open_run(Store(store), run)
    preflight.check(opened, execution)
    selection = selected.selection(opened)
    if dry_run:
        allowed = execution.allow_missing
        show_intents(opened, selection, allow_missing=allowed, as_json=as_json)
        return
    proceed(opened, execution, selection, as_json=as_json)


@grouped
def redistill(
    config: ConfigOptions,
    series: SeriesOptions,
    placement: PlacementOptions,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Make a new version of a distilled dataset if its input has changed.

    Recomputes only the shards affected by a change in the dataset or the config, and does nothing
    if nothing changed. With --if-changed, that takes no longer than a listing of the dataset.
    """
    from distill_core.config.load import load_run
    from distill_core.storage.store import Store
    from flows.commands import summary
    from flows.runs import last_version, pipeline
    from flows.runs import redistill as redistillation
    from flows.runs.argument import check_is_config
    from flows.status.status import run_status

    execution = placement.execution(store)
    if execution.submit is not None:
        submit.refuse({"--json": as_json})
        request = {"command": "redistill", **asdict(series)}
        submit.submit_config(config.preset, config.changes, placement, store, **request)
        return
    check_is_config(
        config.preset,
        command="redistill",
        reason="the sizes that are chosen for a dataset change with its images",
    )
    resolved = load_run(config.preset, config.changes)
    name, policy, home = series.series or resolved.preset, series.policy, Store(store)
    if series.if_changed and (
        last := last_version.unchanged(
            resolved, home, series=name, policy=policy, allow_missing=execution.allow_missing
        )
    ):
        summary.print_unchanged(last, as_json=as_json)
        return
    _check_server(execution)
    outcome = redistillation.redistill(
        resolved, home, series=name, policy=policy, execution=execution, complete=_complete
    )
    summary.print_version(outcome, as_json=as_json)
    pipeline.require_complete(outcome.run, run_status(outcome.run), execution)


def demo(store: StoreUrl = "./out/demo", imagenet: ImageNetDemo = False) -> None:
    """Run every stage, with Prefect and Ray, on real images that need no download."""
    from distill_core.config.load import load_run
    from flows import terminal
    from flows.commands import demos

    config = load_run(demos.IMAGENET if imagenet else demos.DIGITS)
    terminal.print_lines(*(demos.imagenet_opening if imagenet else demos.opening)(config))
    # The images of ImageNet are one shard, which has both cores.
    workers = 1 if imagenet else min(2, os.cpu_count() or 1)
    placement = PlacementOptions(workers=str(workers), device="cpu")
    completed = start(config, None, placement.execution(store))
    if imagenet:
        demos.print_recognition(completed)
    terminal.print_lines(*demos.closing(completed))


def start(config: RunConfig, name: str | None, execution: Execution) -> Run:
    """Register a run and complete it."""
    from flows.runs import pipeline

    registered = pipeline.prepare(
        config, execution, name=name, check=lambda: _check_server(execution)
    )
    return proceed(registered, execution, {})


def proceed(
    run: Run, execution: Execution, selection: ShardSelection, *, as_json: bool = False
) -> Run:
    """Complete a run, and print the accuracy table or the shards that are still missing."""
    from flows import terminal
    from flows.commands import summary
    from flows.runs import pipeline
    from flows.status.status import run_status

    try:
        status = _complete(run, execution, selection)
    except (ShardsFailed, RunIncomplete):
        if as_json:
            terminal.print_json(summary.outcome_json(run, run_status(run)))
        raise
    if as_json:
        terminal.print_json(summary.outcome_json(run, status))
    else:
        summary.print_outcome(run, status)
    if not selection:
        pipeline.require_complete(run, status, execution)
    return run


def show_intents(
    run: Run, selection: ShardSelection, *, allow_missing: int = 0, as_json: bool = False
) -> None:
    """Print the progress of a run and the shards that would run."""
    from flows import terminal
    from flows.runs import shard_selection
    from flows.status import status, tables

    progress = status.run_status(run)
    intents = shard_selection.intents(run, progress, selection, allow_missing=allow_missing)
    if as_json:
        terminal.print_json(shard_selection.intents_to_json(run, intents))
        return
    terminal.print_table(tables.details(progress))
    terminal.print_lines(*(line for intent in intents for line in intent.lines()))


def _check_server(execution: Execution) -> None:
    """Check the server that Prefect is set to use, before anything is written.

    Raises:
        ConfigError: it refuses access, or is no Prefect API.
        ClusterError: it does not answer.
    """
    from flows.orchestration import api

    if not execution.local:
        api.check_server()


def _complete(run: Run, execution: Execution, selection: ShardSelection | None = None) -> RunStatus:
    from flows.orchestration import launch

    return watched(run, execution, lambda: launch.complete_run(run, execution, selection))


def watched(run: Run, execution: Execution, complete: Callable[[], RunStatus]) -> RunStatus:
    """Complete a run; if shards failed, print them on stderr before the error goes on.

    Args:
        run: a registered run.
        execution: where and how jobs run.
        complete: completes it.

    Raises:
        ClusterError, StorageError, MissingDataError: workers, the store or the data were lost or
            cannot be reached; names the command to go on.
    """
    from flows.commands import summary
    from flows.status import status, tables
    from tasks.pools.signals import terminable
    from tasks.pools.supervision import supervised

    notice = partial(summary.print_interruption, run)
    supervision = nullcontext() if execution.local else supervised()
    try:
        with terminable(until_exit=True, notice=notice), supervision:
            return complete()
    except (ClusterError, StorageError, MissingDataError) as error:
        raise type(error)(f"{error} {summary.continuation(run)}") from error
    except ShardsFailed:
        print(*map(sanitised, tables.failures(status.run_status(run))), sep="\n", file=sys.stderr)
        raise
