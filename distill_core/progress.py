"""The callbacks by which long computations report their progress and what they notice."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (units done, units in total)
Notice = Callable[[str], None]  # a sentence about something that does not stop the computation


def silent(done: int, total: int) -> None:
    """Ignore progress."""


def ignore_notice(text: str) -> None:
    """Ignore a notice."""
