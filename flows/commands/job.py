"""`distill job`: the driver of a job that `--submit` or a flow has submitted; not for people."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from flows.commands.failures import SHOW

if TYPE_CHECKING:
    from flows.runs.request import RunRequest
    from flows.runs.shard_selection import ShardSelection
    from flows.status.status import RunStatus
    from tasks.execution import Execution
    from tasks.run import Run


def job() -> None:
    """Carry out the request in the environment, without Prefect, on the Ray of this node."""
    from flows.runs.request import RunRequest
    from flows.runs.submit import failure_line

    os.environ.setdefault(SHOW, "1")  # a file on the head would be lost with it
    try:
        _carry_out(RunRequest.received())
    except Exception as error:
        print(failure_line(error), flush=True)
        raise


def _carry_out(request: RunRequest) -> None:
    from flows.commands import summary
    from flows.progress.event_lines import event_line
    from flows.reports import published, report_data, unused
    from flows.runs.request import carry_out
    from flows.status.status import run_status

    run, outcome = carry_out(request, partial(_run_stages, events=request.events))
    status = run_status(run)
    if outcome is None:
        summary.print_outcome(run, status)
    else:
        summary.print_version(outcome, as_json=False)
    if not request.events:
        return
    if outcome is not None and outcome.unused is not None:
        print(event_line("warning", text=" ".join(unused.lines(outcome.unused))), flush=True)
    if status.has_manifest and (outcome is None or outcome.changed):
        contents = published.contents(report_data.gather(run))
        print(event_line("published", **asdict(contents)), flush=True)


def _run_stages(
    run: Run,
    execution: Execution,
    selection: ShardSelection | None = None,
    *,
    shards: str | None = None,
    and_later: bool = False,
    events: bool,
) -> RunStatus:
    from flows.commands.run import watched
    from flows.progress.event_lines import EventLines
    from flows.runs import pipeline
    from flows.status.status import run_status

    observers: list[Any] = [EventLines(partial(print, flush=True))] if events else []

    def run_them() -> RunStatus:
        with pipeline.opened(run, execution, selection or {}, observers=observers) as work:
            pipeline.run_in_order(work, shards=shards, and_later=and_later)
        return run_status(run)

    reached = watched(run, execution, run_them)
    if not selection and shards is None:
        pipeline.require_complete(run, reached, execution)
    return reached
