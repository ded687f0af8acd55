"""A process that dies in the middle of its work, and checkpoints that outlive it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class Killed(BaseException):
    """Stands for SIGKILL: no handler of an Exception may catch it."""


@dataclass
class MemoryCheckpoints:
    """Keeps checkpoints in memory; may die directly after one of them."""

    dies_after: int | tuple[int, int] | None = None  # epochs, or epochs and batches
    kept: dict[int, bytes] = field(default_factory=dict)  # of whole epochs
    inside: dict[tuple[int, int], bytes] = field(default_factory=dict)  # of epochs and batches

    def save(self, step: int, state: Callable[[], bytes], *, batches: int = 0) -> None:
        """Keep a checkpoint.

        Raises:
            Killed: it is the one after which the process dies.
        """
        if batches:
            self.inside[step, batches] = state()
        else:
            self.kept[step] = state()
        if self.dies_after == ((step, batches) if batches else step):
            raise Killed

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield the checkpoints with their steps, the furthest first."""
        every = {(step, 0): state for step, state in self.kept.items()} | self.inside
        for place in sorted(every, reverse=True):
            yield place[0], every[place]
