"""A process that dies in the middle of its work, and checkpoints that outlive it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class Killed(BaseException):
    """Stands for SIGKILL: no handler of an Exception may catch it."""


@dataclass
class MemoryCheckpoints:
    """Keeps checkpoints in memory; may die directly after one of them."""

    dies_after: int | None = None
    kept: dict[int, bytes] = field(default_factory=dict)

    def save(self, step: int, state: Callable[[], bytes]) -> None:
        """Keep a checkpoint.

        Raises:
            Killed: it is the one after which the process dies.
        """
        self.kept[step] = state()
        if step == self.dies_after:
            raise Killed

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield the checkpoints with their steps, the last one first."""
        yield from sorted(self.kept.items(), reverse=True)
