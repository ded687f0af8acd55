"""Measurements of a stage while it runs: share done, rate, time left."""

from __future__ import annotations

from collections.abc import Callable

from flows import units
from tasks.stages.names import StageId
from tasks.stages.table import STAGES


def unit_of(stage: str) -> str:
    """Return the unit in which the jobs of a stage, or of `verify`, report progress."""
    row = STAGES.get(StageId.parse(stage).kind)
    return "bytes" if row is None else row.unit


class Meter:
    """Measures one stage: share done, rate in the stage's own unit, time left.

    Args:
        total: number of jobs of the stage.
        done: jobs that were complete before it started; the rate does not count them.
        clock: seconds, monotonic.
    """

    def __init__(self, total: int, done: int, *, clock: Callable[[], float]) -> None:
        self.total, self.before, self.finished = total, done, 0
        self._clock, self._start = clock, clock()
        self._running: dict[str, float] = {}  # shard -> share done
        self._units: dict[str, int] = {}  # shard -> units done
        self._banked = 0  # units of finished jobs
        self._whole = 0  # units of the last job that reported; short ones end before they do

    def advance(self, shard: str, done: int, total: int) -> None:
        """Record the progress of a running job."""
        self._running[shard] = min(1.0, done / total) if total else 0.0
        self._units[shard], self._whole = done, total

    def finish(self, shard: str) -> None:
        """Record a finished job."""
        self._running.pop(shard, None)
        self._units.pop(shard, None)
        self._banked += self._whole
        self.finished += 1

    def restart(self, shard: str) -> None:
        """Discard the progress of a job that starts again."""
        self._running.pop(shard, None)
        self._units.pop(shard, None)

    @property
    def jobs(self) -> int:
        """Return the number of complete jobs, those from before included."""
        return self.before + self.finished

    @property
    def work(self) -> float:
        """Return the work done since the start in jobs, parts of running jobs included."""
        return self.finished + sum(self._running.values())

    @property
    def fraction(self) -> float:
        """Return the share of the stage that is done, 0 to 1."""
        return min(1.0, (self.before + self.work) / self.total) if self.total else 1.0

    @property
    def elapsed(self) -> float:
        """Return seconds since the start."""
        return self._clock() - self._start

    def speed(self, unit: str) -> str:
        """Return the rate since the start, in `unit` or else in shards; empty before any work."""
        counted = self._banked + sum(self._units.values())
        amount = counted or self.work
        if amount == 0 or self.elapsed <= 0:
            return ""
        return units.rate(amount / self.elapsed, unit if counted else "shards")

    def eta(self) -> str:
        """Return the time left, ``-`` while nothing is known."""
        left = self.total - self.before - self.work
        return f"ETA {units.duration(self.elapsed * left / self.work)}" if self.work else "ETA -"


def describe(meter: Meter, unit: str) -> str:
    """Return e.g. ``3/8 shards  41 %  120 steps/s  ETA 42 s``."""
    parts = (
        f"{meter.jobs}/{meter.total} shards",
        f"{100 * meter.fraction:.0f} %",
        meter.speed(unit),
        meter.eta(),
    )
    return "  ".join(part for part in parts if part)
