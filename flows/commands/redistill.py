"""The command that makes a new version of a distilled dataset: redistill."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from distill_core.errors import ShardsFailed
from flows.runs.options import (
    DEFAULT_STORE,
    AsJson,
    How,
    Overrides,
    PolicyOption,
    Preset,
    Set,
    StoreUrl,
    execution,
    with_how,
)

if TYPE_CHECKING:
    from flows.runs.redistill import Outcome
    from flows.status.status import RunStatus
    from tasks.execution import Execution
    from tasks.run import Run

SCHEMA = 1  # version of the JSON


@with_how
def redistill(
    preset: Preset,
    overrides: Overrides = None,
    set_: Set = None,
    series: Annotated[
        str | None, typer.Option(help="Of runs SERIES-v0001, -v0002, ... Default: the preset.")
    ] = None,
    policy: PolicyOption = "keep",
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
    **how: Unpack[How],
) -> None:
    """Distil again what changed since the last version; do nothing if nothing did."""
    from distill_core.config.load import load_run
    from distill_core.storage.store import Store
    from flows.runs import redistill as flow

    execution_ = execution(store, how)
    config = load_run(preset, [*(overrides or []), *(set_ or [])])
    outcome = flow.redistill(
        config,
        Store(store),
        series=series or config.preset,
        policy=policy,
        execution=execution_,
        complete=_complete,
    )
    _say(outcome, as_json=as_json)


def _complete(run: Run, how: Execution) -> RunStatus:
    """Do what a run lacks; say which shards failed, if some did."""
    from flows.runs import pipeline
    from flows.status import status
    from tasks.pools.signals import terminable

    try:
        with terminable(until_exit=True):
            return pipeline.complete_run(run, how)
    except ShardsFailed:
        print(*status.failures(status.run_status(run)), sep="\n", file=sys.stderr)
        raise


def _say(outcome: Outcome, *, as_json: bool) -> None:
    from flows import terminal
    from flows.reports import diff_report, summary
    from flows.status.status import run_status

    if as_json:
        terminal.say_json(_to_json(outcome))
        return
    if not outcome.changed:
        terminal.say(f"{outcome.run.name}: neither data nor settings have changed; nothing to do.")
        return
    summary.outcome(outcome.run, run_status(outcome.run))
    if outcome.diff is not None:
        found, path = outcome.diff, outcome.run.path(diff_report.FILE)
        shards = terminal.rows(diff_report.SHARD_HEADER, diff_report.shard_cells(found))
        terminal.say(*diff_report.lines(found))
        terminal.show(shards)
        terminal.say(f"diff: {outcome.run.store.uri(path)}")


def _to_json(outcome: Outcome) -> dict[str, Any]:
    from flows.status.status import run_status

    return {
        "version": SCHEMA,
        "run": outcome.run.name,
        "changed": outcome.changed,
        "complete": run_status(outcome.run).complete,
        "diff": None if outcome.diff is None else outcome.diff.to_json(),
    }
