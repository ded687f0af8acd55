"""The jobs of a stage: what is known of each, and those that wait for a worker."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tasks.jobs import Job
from tasks.pools.outage import Outage


@dataclass(eq=False)
class JobRecord:
    """One job and its failures since an attempt last began further than all before."""

    job: Job[Any]
    own: Counter[str] = field(default_factory=Counter)  # failures that are its own, by node
    unproven: Counter[str] = field(default_factory=Counter)  # likewise, if the node is well
    suspected: Counter[str] = field(default_factory=Counter)  # faults of the environment, by node
    too_small: Counter[str] = field(default_factory=Counter)  # full devices, by node
    losses: Counter[str] = field(default_factory=Counter)  # of its process while it ran, by node
    node_losses: int = 0  # while it ran
    killed: Counter[int] = field(default_factory=Counter)  # processes that it took along, by worker
    tries: Counter[str] = field(default_factory=Counter)  # that failed, by node; none is forgiven
    workers: set[int] = field(default_factory=set)  # on which it failed
    outage: Outage = field(default_factory=Outage)
    outages: Counter[str] = field(default_factory=Counter)  # its failures in it, by node
    outage_after: float = 0.0  # seconds, the longest attempt that met an outage
    outage_last: float = 0.0  # seconds, the last such attempt
    error: Exception | None = None  # the last one
    traceback: str = ""
    start: float = 0.0  # share of its units from which an attempt began, the largest
    furthest: float = 0.0  # share that was reached from there
    is_new_attempt: bool = False  # no progress of the running attempt is known yet
    shown: tuple[int, int] | None = None  # progress that observers know
    home: int | None = None  # worker that may still hold its result
    failed_at: float = 0.0
    failed_since: float | None = None  # its first failure
    running: int | None = None  # worker that runs it

    @property
    def failed_on(self) -> set[str]:
        """Return the nodes on which it failed for a reason that may lie in it."""
        counters = (self.own, self.unproven, self.suspected, self.too_small)
        return {node for counter in counters for node in counter}

    @property
    def tried_on(self) -> set[str]:
        """Return the nodes on which attempts ended badly, whoever was the cause."""
        return {*self.failed_on, *self.losses, *self.tries, *self.outages}

    @property
    def failures(self) -> int:
        """Return how many failures may be its own."""
        return self.own.total() + self.unproven.total() + self.suspected.total()

    def begin(self, worker: int) -> None:
        """Note that a worker runs it."""
        self.running, self.is_new_attempt = worker, True

    def failed(self, error: Exception, traceback: str, *, worker: int, now: float) -> None:
        """Note a failure."""
        self.error, self.traceback, self.failed_at = error, traceback, now
        self.failed_since = now if self.failed_since is None else self.failed_since
        self.workers.add(worker)

    def met_outage(self, now: float, node: str, seconds: float) -> None:
        """Note that an attempt of so many seconds met an outage."""
        if self.outage.meet(now, node):
            self.outages.clear()
        self.outages[node] += 1
        self.outage_last = seconds

    def reached(self, share: float) -> bool:
        """Note its progress; return whether its checkpoint advanced, which clears its record.

        The first progress of an attempt that is seen lies a little beyond the checkpoint from which
        it began. A checkpoint that was saved at regular intervals lies in the second half of what
        was reached; an attempt that started anew is seen earlier. How far an attempt comes shows
        nothing: without checkpoints the next one starts anew, and dies at the same place again.
        """
        is_first, self.is_new_attempt = self.is_new_attempt, False
        middle = (self.start + self.furthest) / 2
        self.furthest = max(self.furthest, share)
        if not is_first or share <= self.start or share < middle:
            return False
        self.start = self.furthest = share
        for counter in (self.own, self.unproven, self.suspected, self.losses, self.outages):
            counter.clear()
        self.tries.clear()
        self.killed.clear()
        self.node_losses, self.failed_since = 0, None
        self.outage.end()
        self.workers.clear()
        return True


class JobQueue:
    """Jobs that wait for a worker, in order; some of them not before a certain time."""

    def __init__(self, records: Iterable[JobRecord]) -> None:
        self._due = deque(records)
        self._later: list[tuple[float, int, JobRecord]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._due) + len(self._later)

    def put(self, record: JobRecord, *, first: bool = False) -> None:
        """Put a job back, as the next or the last one to run."""
        (self._due.appendleft if first else self._due.append)(record)

    def put_later(self, record: JobRecord, time: float) -> None:
        """Put a job back; from a certain time on, it is the next one to run."""
        heapq.heappush(self._later, (time, next(self._number), record))

    def take(
        self, now: float, accepts: Callable[[JobRecord], bool], *, last: bool = False
    ) -> JobRecord | None:
        """Remove and return the first job that is due and accepted, or the last one."""
        while self._later and self._later[0][0] <= now:
            self._due.appendleft(heapq.heappop(self._later)[2])
        places = range(len(self._due))
        for place in reversed(places) if last else places:
            record = self._due[place]
            if accepts(record):
                del self._due[place]
                return record
        return None

    def discard(self, record: JobRecord) -> None:
        """Remove a job, if it waits."""
        if record in self._due:
            self._due.remove(record)
        self._later = [entry for entry in self._later if entry[2] is not record]
        heapq.heapify(self._later)

    @property
    def next_time(self) -> float | None:
        """Return when the next job is due that is not due yet, as far as is known."""
        return self._later[0][0] if self._later else None

    @property
    def due(self) -> int:
        """Return how many jobs were due when one was last taken."""
        return len(self._due)
