"""What `run`, `resume` and `demo` say before and after."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Any

from distill_core.config.schema import RunConfig
from flows import terminal
from flows.estimate import workload
from flows.reports import report_data, tables
from flows.status import status
from flows.status.status import RunStatus
from tasks.run import Run


def outcome(made: Run, reached: RunStatus) -> None:
    """Print the accuracy table and the report's place; or what is still missing."""
    if not reached.has_manifest:
        terminal.show(status.details(reached))
        terminal.say(
            *status.failures(reached),
            f"`distill resume {made.name}` runs what is missing.",
        )
        return
    found = report_data.gather(made)
    terminal.show(tables.terminal_table(found.cells, title=made.name))
    if reached.missing:
        terminal.say(
            f"made without {tables.without(reached.missing)}",
            f"`distill resume {made.name}` tries them again, and then what depends on them.",
        )
    terminal.say(
        found.note,
        f"expected: {made.config.expected}",
        f"report: {_place(made, found.report)}",
    )


def outcome_json(made: Run, reached: RunStatus) -> dict[str, Any]:
    """Return what a pass has led to as a JSON-able tree: the status, the accuracies, the report.

    `accuracy` is null before every stage has its results; see `tables.AccuracyRow` for its rows.
    """
    tree = status.to_json(reached) | {"accuracy": None, "report": None}
    if not reached.has_manifest:
        return tree
    found = report_data.gather(made)
    rows = [asdict(row) for row in found.accuracy]
    return tree | {"accuracy": rows, "report": made.store.uri(found.report)}


def demo_opening(config: RunConfig) -> list[str]:
    """Return what the demo is about to do."""
    plan = workload.plan_run(config)
    post = config.posttrain
    students = ", ".join(student.title for student in post.students)
    return [
        f"distill demo: {config.data.name}, {config.data.num_classes} classes, on this machine.",
        "  1 ingest    read, check and index the real images",
        f"  2 squeeze   train the teacher, {config.squeeze.model.title}",
        f"  3 recover   make {plan.images} images ({config.ipc} per class), {plan.shards} shards, "
        f"{config.recover.steps} steps each",
        f"  4 relabel   let the teacher describe {config.relabel.stored_views} views of each image",
        f"  5 posttrain train {plan.students} students ({students}) and judge them on real images",
        "  6 report    one HTML file",
        "Prefect orders the stages, Ray runs the shards; the first minute is their start-up.",
        "Stop it at any time: the same command goes on where it stopped.",
    ]


def demo_closing(made: Run) -> list[str]:
    """Return the demo's last lines: the report, the store, and how to look at both."""
    place = _place(made, made.path(report_data.REPORT))
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    return [
        f"report: {place}",
        f"store:  {_shorter(made.store.url)}",
        f"look:   {opener} {place}",
    ]


def _place(made: Run, path: str) -> str:
    return _shorter(made.store.uri(path))


def _shorter(url: str) -> str:
    """Return a local path relative to the working folder when that is below it."""
    if "://" in url or not url.startswith(os.getcwd() + os.sep):
        return url
    return os.path.join(".", os.path.relpath(url))
