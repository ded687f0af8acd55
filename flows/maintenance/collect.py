"""Garbage collection with a progress bar; what it does and why, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from distill_core.errors import ConfigError
from distill_core.storage.listing import StoredFile
from distill_core.storage.store import Store
from flows import terminal, units
from tasks.gc.collect import Collection, remove
from tasks.gc.kind_files import Garbage
from tasks.gc.unreferenced import KINDS

SECONDS: Mapping[str, int] = {"h": 3600, "d": 86_400, "w": 604_800}
EXAMPLES = 5  # of foreign objects, unless all are asked for
MAX_SKEW = timedelta(hours=1)


def parse_age(text: str) -> timedelta:
    """Read ``12h``, ``7d`` or ``2w``.

    Raises:
        ConfigError: anything else.
    """
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdecimal() and len(number) <= 4 and unit in SECONDS):
        raise ConfigError(f"--grace {text}: expected an age such as 12h, 7d or 2w.")
    return timedelta(seconds=int(number) * SECONDS[unit])


def remove_with_progress(store: Store, collection: Collection) -> Collection:
    """Remove what a survey found, with a progress bar on a terminal; return what is removed."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("gc", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        removed = remove(store, collection.removed, progress=progress)
        return replace(collection, removed=removed)


def table(collection: Collection) -> Table:
    """Return one row per kind of garbage: what is removed and why, and what is still too young."""
    removed, waiting = by_kind(collection.removed), by_kind(collection.waiting)
    return terminal.table(
        ("to remove", "objects", "size", "too young", "size"),
        [
            (KINDS[kind], *_amount(removed, kind), *_amount(waiting, kind))
            for kind in KINDS
            if kind in removed or kind in waiting
        ],
    )


def remarks(collection: Collection, *, verbose: bool) -> list[str]:
    """Return lines about what is kept although no run is known to need it.

    Args:
        collection: the result of a survey.
        verbose: list every path, and those that are removed.
    """
    lines = [f"remove {item.path}" for item in collection.removed] if verbose else []
    lines += [f"keep {item.path}: {_printable(item.reason)}" for item in collection.kept]
    paths = [_foreign(file) for file in collection.foreign]
    if verbose:
        return lines + [f"foreign, kept: {path}" for path in paths]
    if paths:
        more = f", and {len(paths) - EXAMPLES:,} more" if len(paths) > EXAMPLES else ""
        lines.append(f"foreign, kept: {', '.join(paths[:EXAMPLES])}{more}")
    return lines


def clock_warning(now: datetime, store_now: datetime) -> str:
    """Return a warning if the clock of this machine is far from that of the store, or nothing."""
    difference = now - store_now
    if abs(difference) <= MAX_SKEW:
        return ""
    direction = "ahead of" if difference > timedelta(0) else "behind"
    return (
        f"the clock of this machine is {units.duration(abs(difference).total_seconds())} "
        f"{direction} that of the store. Ages are measured by the store's clock; check both."
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
        "store_time": collection.now.isoformat(timespec="seconds"),
        "removed": by_kind(collection.removed),
        "too_young": by_kind(collection.waiting),
        "paths": sorted(item.path for item in collection.removed),
        "foreign": {
            "objects": len(collection.foreign),
            "paths": sorted(file.path for file in collection.foreign),
        },
        "kept": [{"path": item.path, "reason": item.reason} for item in collection.kept],
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


def _foreign(file: StoredFile) -> str:
    path = _printable(file.path)
    return path if file.regular else f"{path} (a link)"


def _printable(text: str) -> str:
    """Return a text with control characters and undecodable bytes escaped: it may be hostile."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _amount(totals: Mapping[str, Mapping[str, int]], kind: str) -> tuple[str, str]:
    if kind not in totals:
        return "-", "-"
    return f"{totals[kind]['objects']:,}", units.size(totals[kind]["bytes"])
