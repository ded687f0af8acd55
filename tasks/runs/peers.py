"""The shards that other living drivers of a run have on their workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from distill_core.errors import DistillError
from distill_core.storage.shard_store import utc_now
from tasks.run import Run
from tasks.runs.drivers import (
    STALE_SECONDS,
    DriverRecord,
    is_gone,
    parse_time,
    read_drivers,
)
from tasks.stages.names import StageId
from tasks.stages.table import row_of

READ_SECONDS = 10.0  # as often as drivers write their records
FORGOTTEN = timedelta(days=1)  # a record that old is not read again


@dataclass(frozen=True)
class _Seen:
    """The last record of a driver, and when it was seen first, by the clock of this process."""

    updated: str
    since: float
    changed: bool  # another one was seen before it


class Peers:
    """The other drivers of a stage, read every few seconds in a thread during a `with` block.

    A driver that stopped writing its record is dead after `STALE_SECONDS`, by the clock of this
    process, or at once if its process ran beside this one and is gone. Its shards are free then.
    Records are advisory: two drivers that begin a shard within the same few seconds both run it,
    until they have read of each other.

    Args:
        run: the run.
        stage: the stage that this driver runs.
        own: id of this driver; None: it has no record.
        seconds: interval between two readings.
        clock: returns the time, in UTC.
        monotonic: returns the time in seconds, from any start.
    """

    def __init__(
        self,
        run: Run,
        stage: StageId,
        own: str | None,
        *,
        seconds: float = READ_SECONDS,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._stage, self._own, self._seconds = run, str(stage), own, seconds
        self._clock, self._monotonic = clock, monotonic
        self._seen: dict[str, _Seen] = {}
        self._ended: set[str] = set()  # ids of drivers whose records no longer change
        self._holders: dict[str, DriverRecord] = {}  # by shard
        self._preceded: frozenset[str] = frozenset()  # shards that others began before this driver
        self._waits = row_of(stage).trains
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_reading, name="peers", daemon=True)

    def __enter__(self) -> Self:
        self.read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()  # the thread may wait for a slow store; it ends by itself

    @property
    def waits(self) -> bool:
        """Return whether shards are left to the drivers that run them, since they take hours."""
        return self._waits

    def holds(self, shard: str) -> bool:
        """Return whether another living driver runs a shard, as far as is known."""
        return shard in self._holders

    def precedes(self, shard: str) -> bool:
        """Return whether another living driver began a shard before this one, by their records."""
        return shard in self._preceded

    def holder(self, shard: str) -> DriverRecord | None:
        """Return the living driver that runs a shard, as far as is known."""
        return self._holders.get(shard)

    def read(self) -> None:
        """Read the records now; while the store does not answer, the last ones count."""
        with suppress(DistillError):
            records = read_drivers(self._run, without=self._ended)
            self._ended |= {record.id for record in records if self._has_ended(record)}
            others = [r for r in records if r.id != self._own and self._is_alive(r)]
            own = [record for record in records if record.id == self._own]
            begun, first = self._begun(own), self._begun(others)
            self._holders = {shard: record for shard, (_, record) in first.items()}
            self._preceded = frozenset(
                shard
                for shard in begun.keys() & first.keys()
                if self._rank(*first[shard]) < self._rank(*begun[shard])
            )

    def _begun(self, records: Iterable[DriverRecord]) -> dict[str, tuple[str, DriverRecord]]:
        """Return who began each running shard of the stage first, and when."""
        found: dict[str, tuple[str, DriverRecord]] = {}
        for record in records:
            for running in record.running:
                if running.stage != self._stage:
                    continue
                entry = running.since, record
                known = found.get(running.shard, entry)
                found[running.shard] = min(known, entry, key=lambda each: self._rank(*each))
        return found

    @staticmethod
    def _rank(since: str, record: DriverRecord) -> tuple[datetime, str]:
        return parse_time(since), record.id

    def _is_alive(self, record: DriverRecord) -> bool:
        now, seen = self._monotonic(), self._seen.get(record.id)
        if seen is None or seen.updated != record.updated:
            seen = _Seen(record.updated, now, changed=seen is not None)
            self._seen[record.id] = seen
        is_recent = now - seen.since < STALE_SECONDS
        # At first sight its own time has to do; later, a wrong clock of another machine does not
        # matter.
        fresh = is_recent and (seen.changed or record.is_alive(self._clock()))
        return record.state == "running" and fresh and not is_gone(record)

    def _has_ended(self, record: DriverRecord) -> bool:
        silence = self._clock() - parse_time(record.updated)
        return record.state != "running" or silence > FORGOTTEN or is_gone(record)

    def _keep_reading(self) -> None:
        while not self._stopping.wait(self._seconds):
            self.read()
