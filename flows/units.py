"""Durations, bytes, rates and counts as text."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return e.g. ``12 s``, ``4 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Return bytes in powers of ten, e.g. ``516 B``, ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 999.5 else f"{count:,.0f} TB"


def rate(per_second: float, unit: str) -> str:
    """Return e.g. ``120 steps/s`` or, when slow, ``4.2 epochs/min``."""
    if unit == "bytes":
        return f"{size(per_second)}/s"
    if per_second >= 1:
        return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:.1f} {unit}/s"
    if per_second * 60 >= 1:
        return f"{per_second * 60:.1f} {unit}/min"
    return f"{per_second * 3600:.1f} {unit}/h"


def shards(count: int) -> str:
    """Return e.g. ``1 shard``, ``2,622 shards``."""
    return "1 shard" if count == 1 else f"{count:,} shards"
