"""Progress of stages: bars with rate and ETA on a terminal, plain lines elsewhere.

Both are a `tasks.observer.Observer`; `flows.progress.meter` computes their numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows import units
from flows.progress.background import background
from flows.progress.followers import Detached
from flows.progress.meter import Meter, describe, unit_of

if TYPE_CHECKING:
    from tasks.jobs import Receipt
    from tasks.observer import Observer

LINE_SECONDS = 60.0  # at least, between two plain lines about the progress of a stage


class Lines:
    """Plain lines for logs and pipes.

    Args:
        write: takes one line without its end.
        clock: seconds, monotonic.
        interval: seconds, at least, between two lines of progress of a stage.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        interval: float = LINE_SECONDS,
    ) -> None:
        self._write, self._clock, self._interval = write, clock, interval
        self._meters: dict[str, Meter] = {}
        self._last = clock()

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Write the number of shards."""
        self._meters[stage] = Meter(total, done, clock=self._clock)
        self._last = self._clock()
        before = f", {done} done before" if done else ""
        self._write(f"{stage}: started, {units.shards(total)}{before}")

    def stage_notice(self, stage: str, text: str) -> None:
        """Write it."""
        self._write(f"{stage}: {text}")

    def job_started(self, stage: str, shard: str) -> None:
        """Do nothing: progress and the end of a job are enough."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Record progress; write a line if the last one is old enough."""
        self._meters[stage].advance(shard, done, total)
        self._tick(stage)

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Record a finished job."""
        self._meters[stage].finish(receipt.shard)
        self._tick(stage)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Report that a job is tried again, and why."""
        self._meters[stage].restart(shard)
        self._write(f"{stage}: {shard}: trying again: {reason}")

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Report that a job used up its attempts."""
        self._meters[stage].restart(shard)
        self._write(f"{stage}: {shard}: FAILED: {error}")

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Write the time that the stage took."""
        meter = self._meters[stage]
        self._write(f"{stage}: {meter.jobs}/{meter.total} shards in {units.duration(seconds)}")

    def _tick(self, stage: str) -> None:
        if self._clock() - self._last < self._interval:
            return
        self._last = self._clock()
        self._write(f"{stage}: {describe(self._meters[stage], unit_of(stage))}")


class Bars:
    """One bar per stage on a terminal; retries and failures are printed above the bars."""

    def __init__(self, bars: Progress, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bars, self._clock = bars, clock
        self._stages: dict[str, tuple[TaskID, Meter]] = {}

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Add the stage's bar."""
        task = self._bars.add_task(f"{stage:<9}", total=1.0, numbers="")
        self._stages[stage] = (task, Meter(total, done, clock=self._clock))
        self._show(stage)

    def stage_notice(self, stage: str, text: str) -> None:
        """Print it above the bars."""
        self._print(f"{stage}: {text}", style="yellow")

    def job_started(self, stage: str, shard: str) -> None:
        """Do nothing: progress and the end of a job are enough."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Move the bar within a job."""
        self._stages[stage][1].advance(shard, done, total)
        self._show(stage)

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Move the bar by a job."""
        self._stages[stage][1].finish(receipt.shard)
        self._show(stage)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Report that a job is tried again, and why."""
        self._stages[stage][1].restart(shard)
        self._print(f"{stage}: {shard}: trying again: {reason}", style="yellow")

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Report that a job used up its attempts."""
        self._stages[stage][1].restart(shard)
        self._print(f"{stage}: {shard}: FAILED: {error}", style="red")

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Stop the bar, with the time that the stage took."""
        task, meter = self._stages[stage]
        numbers = f"{meter.jobs}/{meter.total} shards in {units.duration(seconds)}"
        self._bars.update(task, completed=meter.fraction, numbers=numbers)
        self._bars.stop_task(task)

    def _show(self, stage: str) -> None:
        task, meter = self._stages[stage]
        numbers = describe(meter, unit_of(stage))
        self._bars.update(task, completed=meter.fraction, numbers=numbers)

    def _print(self, text: str, *, style: str) -> None:
        self._bars.console.print(text, style=style, markup=False, highlight=False)


@contextmanager
def display(console: Console | None = None) -> Iterator[Observer]:
    """Yield bars when the console (default: stderr) is a terminal, else plain lines.

    They are shown from another thread, because a terminal that is stopped accepts nothing.
    """
    console = console or Console(stderr=True)
    with _shown(console) as observer, background("display") as calls:
        yield Detached(observer, calls)


@contextmanager
def _shown(console: Console) -> Iterator[Observer]:
    if not console.is_terminal:
        yield Lines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        yield Bars(bars)
