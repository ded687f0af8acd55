"""The first and last lines of run, resume, redistill and demo, and their JSON."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from signal import Signals
from typing import TYPE_CHECKING, Any

from distill_core.config.schema import RunConfig
from flows import terminal
from flows.estimate import workload
from flows.reports import diff, report_data, tables, unused
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
        f"report: {_place(run, data.report)}",
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


DEMO_MINUTES = "one to three"  # measured: 74 s on two cores that are limited to AVX2


def demo_opening(config: RunConfig) -> list[str]:
    """Return the steps of the demo."""
    plan = workload.plan_run(config)
    students = ", ".join(student.title for student in config.posttrain.students)
    return [
        f"distill demo: {config.data.name}, {config.data.num_classes} classes, on this machine.",
        "  1 ingest    read, check and index the real images",
        f"  2 squeeze   train the teacher, {config.squeeze.model.title}",
        f"  3 recover   optimise {plan.images} images ({config.ipc} per class) in {plan.shards} "
        f"shards, {config.recover.steps} steps each",
        f"  4 relabel   store soft labels of {config.relabel.stored_views} views of each image",
        f"  5 posttrain train {plan.students} students ({students}) and test them on real images",
        "  6 report    write one HTML file",
        "Prefect orders the stages and Ray runs the shards. On two cores all of it takes about "
        f"{DEMO_MINUTES} minutes, the start of Prefect and Ray included.",
        "You can stop it at any time: run the same command again and it continues.",
    ]


def demo_closing(run: Run) -> list[str]:
    """Return the path of the store, and a command that opens the report."""
    place = _place(run, run.path(report_data.REPORT))
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    return [
        f"store:  {_shorter(run.store.url)}",
        f"look:   {opener} {place}",
    ]


def _place(run: Run, path: str) -> str:
    return _shorter(run.store.uri(path))


def _shorter(url: str) -> str:
    """Return a local path relative to the working folder when that is below it."""
    if "://" in url or not url.startswith(os.getcwd() + os.sep):
        return url
    return os.path.join(".", os.path.relpath(url))
