"""A process that dies in the middle of its work, and checkpoints that outlive it."""

from __future__ import annotations

from dataclasses import dataclass, field


class Killed(BaseException):
    """Stands for SIGKILL: no handler of an Exception may catch it."""


@dataclass
class MemoryCheckpoints:
    """Keeps checkpoints in memory; may die directly after one of them."""

    dies_after: int | None = None
    kept: dict[int, bytes] = field(default_factory=dict)

    def save(self, step: int, payload: bytes) -> None:
        """Keep a checkpoint.

        Raises:
            Killed: it is the one after which the process dies.
        """
        self.kept[step] = payload
        if step == self.dies_after:
            raise Killed

    def latest(self) -> tuple[int, bytes] | None:
        """Return the checkpoint of the last step, with its step."""
        return max(self.kept.items(), default=None)
