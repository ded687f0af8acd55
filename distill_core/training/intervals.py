"""Intervals at which a training saves its state between the ends of its epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distill_core.training.distributed import DistributedContext

Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class SaveInterval:
    """A number of steps, or seconds that may pass without a saved state."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> SaveInterval:
        """Return the interval of a text such as ``500 steps`` or ``10 minutes``; None: neither."""
        if text is None:
            return cls()
        number = int("".join(filter(str.isdigit, text)))
        return cls(steps=number) if "step" in text else cls(seconds=60.0 * number)


class SaveTimer:
    """Decides after which steps a training saves its state; the same in every process of a gang.

    The processes agree at few steps: an interval in seconds is translated into steps by the time
    that the steps before have taken, and looked at again after at most twice as many steps.

    Args:
        interval: between two saved states.
        world: the processes; the clock of the first one decides.
        clock: returns seconds.
    """

    def __init__(self, interval: SaveInterval, world: DistributedContext, clock: Clock) -> None:
        self._interval, self._world, self._clock = interval, world, clock
        self._steps, self._look, self._since = 0, 1, clock()

    def restart(self) -> None:
        """Count from now on, because the state has been saved."""
        self._steps, self._look, self._since = 0, 1, self._clock()

    def is_due(self) -> bool:
        """Count a step; return whether the state is to be saved after it.

        All processes must call this after every step.
        """
        self._steps += 1
        if self._interval.seconds is None:
            return self._steps == self._interval.steps
        if self._steps < self._look:
            return False
        due, self._look = self._world.broadcast(self._decide)
        return due

    def _decide(self) -> tuple[bool, int]:
        """Return whether the state is to be saved now, and else at which step to look again."""
        assert self._interval.seconds is not None
        passed = self._clock() - self._since
        left = self._interval.seconds - passed
        more = int(self._steps * min(1.0, max(0.0, left) / max(passed, 1e-9)))
        return left <= 0, self._steps + max(1, more)
