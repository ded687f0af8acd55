"""The diff report of a version: ``diff.json`` for programs, ``diff.md`` for people."""

from __future__ import annotations

import json
from collections.abc import Sequence

from flows import units
from flows.reports.diff import AccuracyDiff, Diff, compare
from flows.reports.tables import markdown_table
from tasks.run import Run
from tasks.series import version_of

FILE = "diff.json"
NAMED = 20  # classes or shards that a line names; the JSON has all
SHARD_HEADER = ("stage", "recomputed", "taken over", "bytes before", "bytes after")
ACCURACY_HEADER = ("network", "trained on", "before", "after", "difference")


def write_diff(run: Run) -> Diff | None:
    """Compare a version with the one it was made from, and keep the result beside it.

    Returns:
        None: it was made from nothing, or from a run that is gone.
    """
    version = version_of(run)
    if version is None or not run.store.exists(f"runs/{version.previous}/run.yaml"):
        return None
    diff = compare(run, version)
    run.store.put(run.path(FILE), json.dumps(diff.to_json(), indent=1).encode())
    run.store.put(run.path("diff.md"), markdown(diff).encode())
    return diff


def markdown(diff: Diff) -> str:
    """Return the report for people."""
    shards = markdown_table(SHARD_HEADER, shard_cells(diff))
    accuracy = markdown_table(ACCURACY_HEADER, accuracy_cells(diff))
    return "\n\n".join(
        [
            f"# {diff.run} against {diff.previous}",
            "\n".join(f"- {line}" for line in lines(diff)),
            f"## Shards\n\n{shards}",
            f"## Accuracy\n\nTop-1 on the real test split, percent.\n\n{accuracy}\n",
        ]
    )


def lines(diff: Diff) -> list[str]:
    """Return the first lines of the report."""
    classes = diff.classes
    return [
        f"policy: {diff.policy}",
        f"dataset: {diff.dataset[0]}, now {diff.dataset[1]}",
        f"settings that differ: {', '.join(diff.config) or 'none'}",
        f"classes added: {_named(classes.added)}",
        f"classes removed: {_named(classes.removed)}",
        f"classes changed: {_named(classes.changed)}",
        f"classes unchanged: {classes.unchanged:,}",
        f"test split: {'changed' if classes.test_changed else 'unchanged'}",
        f"shards missing: {_named(diff.missing)}",
    ]


def shard_cells(diff: Diff) -> list[tuple[str, ...]]:
    """Return the body of the table of shards."""
    return [
        (
            shards.manifest,
            f"{len(shards.recomputed):,}",
            f"{shards.taken_over:,}",
            units.size(shards.bytes_before),
            units.size(shards.bytes_after),
        )
        for shards in diff.shards
    ]


def accuracy_cells(diff: Diff) -> list[tuple[str, ...]]:
    """Return the body of the table of accuracies."""
    return [
        (row.network, row.trained_on, _percent(row.before), _percent(row.after), _gain(row))
        for row in diff.accuracy
    ]


def _named(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} ({', '.join(names[:NAMED])}{more})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _gain(row: AccuracyDiff) -> str:
    if row.before is None or row.after is None:
        return "-"
    return f"{row.after - row.before:+.1f}"
