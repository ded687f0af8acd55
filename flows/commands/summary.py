"""The last lines of run, resume and redistill, and their JSON."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from signal import Signals
from typing import TYPE_CHECKING, Any

from flows import terminal
from flows.reports import diff, report_data, tables, unused
from flows.runs import last_version
from flows.status import tables as status_tables
from flows.status.status import RunStatus, run_status
from tasks.run import Run

if TYPE_CHECKING:
    from flows.runs.redistill import Outcome

VERSION_SCHEMA = 1  # version of the JSON of redistill


def print_outcome(run: Run, status: RunStatus) -> None:
    """Print the accuracy table and the path of the report, or the shards that are missing."""
    if not status.has_manifest:
        terminal.print_table(status_tables.details(status))
        terminal.print_lines(
            *status_tables.failures(status),
            f"Run `distill resume {run.name}` to compute the missing shards.",
        )
        return
    data = report_data.gather(run)
    terminal.print_table(tables.terminal_table(data.cells, title=run.name))
    if status.missing:
        terminal.print_lines(
            f"made without {tables.without(status.missing)}",
            f"Run `distill resume {run.name}` to try them again, with everything that depends on "
            "them.",
        )
    terminal.print_lines(
        data.note,
        f"expected: {run.config.expected}",
        f"report: {place(run, data.report)}",
    )


def print_interruption(run: Run, number: Signals) -> None:
    """Print on stderr that a signal stops the run, and how to continue it."""
    print(
        f"distill: {number.name}: stopping. {continuation(run)} Press Ctrl-C to stop at once.",
        file=sys.stderr,
    )


def continuation(run: Run) -> str:
    """Return the command that continues a run, in a sentence."""
    return (
        "Committed shards are kept; continue with "
        f"`distill resume {run.name} --store {run.store.url}`."
    )


def outcome_json(run: Run, status: RunStatus) -> dict[str, Any]:
    """Return the status, the accuracies and the report of a run as a JSON-able tree.

    `accuracy` is null before every stage has its manifests; see `tables.AccuracyRow` for its rows.
    """
    tree = status_tables.to_json(status) | {"accuracy": None, "report": None}
    if not status.has_manifest:
        return tree
    data = report_data.gather(run)
    rows = [asdict(row) for row in data.accuracy]
    return tree | {"accuracy": rows, "report": run.store.uri(data.report)}


def print_version(outcome: Outcome, *, as_json: bool) -> None:
    """Print a version of a series, with its differences from the previous one."""
    run = outcome.run
    if as_json:
        terminal.print_json(version_json(outcome))
        return
    if outcome.unused is not None:
        terminal.print_lines(*unused.lines(outcome.unused))
        return
    if not outcome.changed:
        terminal.print_lines(f"{run.name}: neither data nor settings have changed; nothing to do.")
        return
    print_outcome(run, run_status(run))
    if outcome.diff is not None:
        terminal.print_lines(*diff.lines(outcome.diff))
        terminal.print_table(terminal.table(diff.SHARD_HEADER, diff.shard_cells(outcome.diff)))
        terminal.print_lines(f"diff: {run.store.uri(run.path(diff.FILE))}")


def print_unchanged(run: Run, *, as_json: bool) -> None:
    """Print that a listing of the source shows no change since the last version of a series."""
    from flows.runs.redistill import Outcome

    if as_json:
        terminal.print_json(version_json(Outcome(run, changed=False, diff=None)))
    else:
        terminal.print_lines(last_version.sentence(run))


def version_json(outcome: Outcome) -> dict[str, Any]:
    """Return a version of a series as a JSON-able tree."""
    return {
        "version": VERSION_SCHEMA,
        "run": outcome.run.name,
        "changed": outcome.changed,
        "complete": run_status(outcome.run).complete,
        "diff": None if outcome.diff is None else outcome.diff.to_json(),
        "unused": None if outcome.unused is None else outcome.unused.to_json(),
    }


def place(run: Run, path: str) -> str:
    """Return an object's address, relative to the working folder if it lies below that."""
    return shorter(run.store.uri(path))


def shorter(url: str) -> str:
    """Return a local path relative to the working folder when that is below it."""
    if "://" in url or not url.startswith(os.getcwd() + os.sep):
        return url
    return os.path.join(".", os.path.relpath(url))
