"""Garbage collection with a progress bar, and its result as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from distill_core.errors import ConfigError
from distill_core.storage.store import Store
from flows import terminal, units
from tasks.gc.collect import Collection, collect
from tasks.gc.unreferenced import KINDS, Garbage

SECONDS: Mapping[str, int] = {"h": 3600, "d": 86_400, "w": 604_800}


def parse_age(text: str) -> timedelta:
    """Read ``12h``, ``7d`` or ``2w``.

    Raises:
        ConfigError: anything else.
    """
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdecimal() and len(number) <= 4 and unit in SECONDS):
        raise ConfigError(f"--grace {text}: expected an age such as 12h, 7d or 2w.")
    return timedelta(seconds=int(number) * SECONDS[unit])


def collect_with_progress(store: Store, *, grace: timedelta, dry_run: bool) -> Collection:
    """Collect garbage, with a progress bar on a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("gc", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return collect(store, grace=grace, dry_run=dry_run, progress=progress)


def table(collection: Collection) -> Table:
    """Return one row per kind of garbage: what was removed, and what is still too young."""
    removed, waiting = by_kind(collection.removed), by_kind(collection.waiting)
    return terminal.table(
        ("kind", "objects", "size", "too young", "size"),
        [
            (KINDS[kind], *_amount(removed, kind), *_amount(waiting, kind))
            for kind in KINDS
            if kind in removed or kind in waiting
        ],
    )


def summary(collection: Collection, *, dry_run: bool) -> str:
    """Return the last line of the output."""
    if not collection.removed:
        return "nothing to remove"
    total = units.size(sum(item.bytes for item in collection.removed))
    verb = "would remove" if dry_run else "removed"
    return f"{verb} {len(collection.removed):,} objects, {total}"


def to_json(collection: Collection, *, grace: timedelta, dry_run: bool) -> dict[str, Any]:
    """Return a JSON-able tree; sizes in bytes, 0 for unfinished uploads of unknown size."""
    return {
        "dry_run": dry_run,
        "grace_seconds": grace.total_seconds(),
        "removed": by_kind(collection.removed),
        "too_young": by_kind(collection.waiting),
        "paths": sorted(item.path for item in collection.removed),
    }


def by_kind(items: Sequence[Garbage]) -> dict[str, dict[str, int]]:
    """Return the number of objects and bytes of each kind."""
    kinds = {item.kind for item in items}
    return {
        kind: {
            "objects": sum(item.kind == kind for item in items),
            "bytes": sum(item.bytes for item in items if item.kind == kind),
        }
        for kind in KINDS
        if kind in kinds
    }


def _amount(totals: Mapping[str, Mapping[str, int]], kind: str) -> tuple[str, str]:
    if kind not in totals:
        return "-", "-"
    return f"{totals[kind]['objects']:,}", units.size(totals[kind]["bytes"])
