"""The callback by which long computations report their progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (units done, units in total)


def silent(done: int, total: int) -> None:
    """Ignore progress."""
