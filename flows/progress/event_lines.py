"""Events of a run as lines of a log, from which another machine shows its progress.

A line is a prefix and a JSON object with the name of the event and `at`, in seconds of a clock of
the run. The lines of an earlier version of this program, or of none, are left alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distill_core.redaction import sanitised
from tasks.jobs import Receipt

if TYPE_CHECKING:
    from tasks.observer import Observer

PREFIX = "distill-event: "
PROGRESS_SECONDS = 20.0  # between two lines about the shards that are running

Event = dict[str, Any]


def event_line(event: str, **details: Any) -> str:
    """Return the line of an event, without credentials."""
    return PREFIX + sanitised(json.dumps({"event": event, **details}))


def event_of(line: str) -> Event | None:
    """Return the event of a line; None: it is another line."""
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line.removeprefix(PREFIX))
    except ValueError:  # cut short by the end of its process
        return None
    return event if isinstance(event, dict) and "event" in event else None


class EventLines:
    """Writes the events of stages and shards; an `Observer`.

    Args:
        write: takes one line without its end.
        clock: seconds, monotonic.
        interval: seconds between two lines about running shards; one line is about all of them.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        interval: float = PROGRESS_SECONDS,
    ) -> None:
        self._write, self._clock, self._interval = write, clock, interval
        self._progress: dict[str, tuple[int, int]] = {}
        self._last = clock()

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Write the number of shards."""
        self._progress.clear()
        self._last = self._clock()
        self._event("stage_started", stage=stage, total=total, done=done)

    def stage_notice(self, stage: str, text: str) -> None:
        """Write it."""
        self._event("stage_notice", stage=stage, text=text)

    def job_started(self, stage: str, shard: str) -> None:
        """Do nothing: progress and the end of a shard are enough."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Record progress; write that of all running shards if the last line is old enough."""
        self._progress[shard] = (done, total)
        if self._clock() - self._last >= self._interval:
            self._last = self._clock()
            running, self._progress = self._progress, {}
            self._event("progress", stage=stage, shards=running)

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Write a finished shard."""
        self._progress.pop(receipt.shard, None)
        details = {"shard": receipt.shard, "rows": receipt.rows, "seconds": receipt.seconds}
        self._event("job_finished", stage=stage, **details)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Write a new attempt."""
        self._progress.pop(shard, None)
        self._event("job_retried", stage=stage, shard=shard, reason=reason)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Write a shard that used up its attempts."""
        self._progress.pop(shard, None)
        self._event("job_failed", stage=stage, shard=shard, error=error)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Write the time."""
        self._event("stage_finished", stage=stage, seconds=round(seconds, 3))

    def _event(self, event: str, **details: Any) -> None:
        self._write(event_line(event, at=round(self._clock(), 3), **details))


class EventClock:
    """The clock of a run that is followed: the time of its last event."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return seconds."""
        return self.now


def replay(event: Event, observer: Observer, clock: EventClock) -> bool:
    """Pass an event of a stage or shard on to an observer; return whether it was one.

    Args:
        event: as `event_of` returns it.
        observer: receives it.
        clock: of the observer; is set to the time of the event.
    """
    details = dict(event)
    name, clock.now = details.pop("event"), details.pop("at", clock.now)
    if name == "progress":
        for shard, (done, total) in details["shards"].items():
            observer.job_progress(details["stage"], shard, done, total)
    elif name == "job_finished":
        stage = details.pop("stage")
        observer.job_finished(stage, Receipt(key="", **details))
    elif name in OTHERS:
        getattr(observer, name)(**details)
    else:
        return False
    return True


OTHERS = ("stage_started", "stage_notice", "job_retried", "job_failed", "stage_finished")
