"""Commands that run stages: run, resume, demo."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Unpack

import typer

from distill_core.errors import ShardsFailed
from flows.runs.options import (
    DEFAULT_STORE,
    AsJson,
    DryRun,
    FailedOnly,
    How,
    Overrides,
    Preset,
    RunName,
    ShardList,
    StoreUrl,
    execution,
    with_how,
)

if TYPE_CHECKING:
    from distill_core.config.schema import RunConfig
    from flows.runs.shard_selection import Only
    from tasks.execution import Execution
    from tasks.run import Run


@with_how
def run(
    preset: Preset,
    overrides: Overrides = None,
    store: StoreUrl = DEFAULT_STORE,
    name: Annotated[str | None, typer.Option(help="Default: preset and config hash.")] = None,
    dry_run: DryRun = False,
    **how: Unpack[How],
) -> None:
    """Distil a dataset, e.g. `distill run digits-demo ipc=10 --local`."""
    from distill_core.config.load import load_run
    from distill_core.storage.store import Store
    from tasks.run import Run, default_name

    config, execution_ = load_run(preset, overrides or []), execution(store, how)
    if dry_run:
        planned = Run(name or default_name(config), config, Store(store))
        say_what_is_missing(planned, {}, allow_missing=execution_.allow_missing)
        return
    start(config, name, execution_)


@with_how
def resume(
    run: RunName,
    store: StoreUrl = DEFAULT_STORE,
    failed_only: FailedOnly = False,
    shards: ShardList = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    **how: Unpack[How],
) -> None:
    """Do what a run lacks, and nothing else, e.g. `distill resume RUN --failed-only`."""
    from distill_core.storage.store import Store
    from flows.runs.shard_selection import selection
    from tasks.run import open_run

    execution_, found = execution(store, how), open_run(Store(store), run)
    only = selection(found, failed_only=failed_only, shards=shards)
    if dry_run:
        allowed = execution_.allow_missing
        say_what_is_missing(found, only, allow_missing=allowed, as_json=as_json)
        return
    proceed(found, execution_, only, as_json=as_json)


def demo(store: StoreUrl = "./out/demo") -> None:
    """Run everything once, Prefect and Ray included, on real images that need no download."""
    from distill_core.config.load import load_run
    from flows import terminal
    from flows.reports import summary

    config = load_run("digits-demo")
    terminal.say(*summary.demo_opening(config))
    workers = min(2, os.cpu_count() or 1)
    made = start(config, None, execution(store, {"workers": workers, "device": "cpu"}))
    terminal.say(*summary.demo_closing(made))


def start(config: RunConfig, name: str | None, how: Execution) -> Run:
    """Register a run and complete it."""
    from distill_core.storage.store import Store
    from flows.runs import pipeline

    made = pipeline.prepare(config, Store(how.store), name=name, single_writer=how.single_writer)
    return proceed(made, how, {})


def proceed(made: Run, how: Execution, only: Only, *, as_json: bool = False) -> Run:
    """Complete a run, and show the accuracy table or what is still missing."""
    from flows import terminal
    from flows.reports import summary
    from flows.runs import pipeline
    from flows.status import status
    from tasks.pools.signals import terminable

    try:
        with terminable(until_exit=True):
            reached = pipeline.complete_run(made, how, only)
    except ShardsFailed:
        reached = status.run_status(made)
        if as_json:
            terminal.say_json(summary.outcome_json(made, reached))
        print(*status.failures(reached), sep="\n", file=sys.stderr)
        raise
    if as_json:
        terminal.say_json(summary.outcome_json(made, reached))
    else:
        summary.outcome(made, reached)
    return made


def say_what_is_missing(
    made: Run, only: Only, *, allow_missing: int = 0, as_json: bool = False
) -> None:
    """Show how far a run is and which shards would run."""
    from flows import terminal
    from flows.runs import shard_selection
    from flows.status import status

    reached = status.run_status(made)
    intents = shard_selection.intents(made, reached, only, allow_missing=allow_missing)
    if as_json:
        terminal.say_json(shard_selection.intents_to_json(made, intents))
        return
    terminal.show(status.details(reached))
    terminal.say(*(line for intent in intents for line in intent.lines()))
