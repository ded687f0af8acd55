"""The simulated cluster as a `Pool` in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from distill_core.errors import (
    DataError,
    MissingDataError,
    OutOfMemoryError,
    StorageError,
    StorageRefused,
)
from tasks.jobs import Job, Receipt
from tasks.pools.events import Broken, Done, Event, Lost, OnProgress, Raised, Ready
from tests.support.cluster.model import ERRORS, Scenario, Work
from tests.support.cluster.records import Clock, Ledger, Place

BUILD_SECONDS = 30.0  # of a worker
BEGIN_SECONDS = 1.0  # until a job has read its input
STORE_SECONDS = 30.0  # that a request tries to reach a store that is away
END_SECONDS = 366 * 86400.0  # longer than any scenario
UNITS = 10_000  # of progress
PEEK_SECONDS = 600.0  # between two reports of it; one also precedes each event
FIRST_PEEK_SECONDS = 2.0  # from the start of a job to its first one
STORE_KINDS = ("refused", "unreachable")  # illnesses of which jobs in flight notice, too


class Cluster:
    """Plays one stage of a scenario.

    Args:
        scenario: nodes and faults.
        works: the truth about each job, by key.
        clock: shared by all stages.
        ledger: likewise.
        on_commit: called with each job that is committed.
    """

    def __init__(
        self,
        scenario: Scenario,
        works: dict[str, Work],
        clock: Clock,
        ledger: Ledger,
        on_commit: Callable[[Job[Any]], None] = lambda job: None,
    ) -> None:
        self.scenario, self.works, self.clock, self.ledger = scenario, works, clock, ledger
        self.on_commit = on_commit
        nodes = [node for node in scenario.nodes for _ in range(node.workers)]
        self.places = [Place(number, node) for number, node in enumerate(nodes)]
        self.workers = len(nodes)
        self._due: list[tuple[float, int, Callable[[], Event | None]]] = []
        self._number = count()
        self._peeked = clock.now
        self._progress: OnProgress = lambda key, done, total: None
        for place in self.places:
            self._start(place)
        self._schedule_faults()

    # The protocol of a pool.

    def submit(self, worker: int, job: Job[Any]) -> None:
        """Append a job."""
        place = self.places[worker]
        assert place.ready, "a job for a worker that is not there"
        place.queue.append(job)
        if len(place.queue) == 1:
            self._begin(place)

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Move the clock to the next events, or by so many seconds."""
        self._progress = on_progress
        assert self.clock.now < END_SECONDS, "the stage does not end"
        if self.clock.now - self._peeked >= PEEK_SECONDS:
            self._peeked = self.clock.now
            for place in self.places:
                self._report(place)
        until, events = self.clock.now + seconds, list[Event]()
        while self._due and self._due[0][0] <= (self.clock.now if events else until):
            time, _, happen = heapq.heappop(self._due)
            self.clock.now = max(self.clock.now, time)
            if (event := happen()) is not None:
                events.append(event)
        if not events:
            self.clock.now = until
        return events

    def restart(self, worker: int) -> None:
        """Kill a worker and build it again."""
        place = self.places[worker]
        if place.computing:
            self.ledger.discarded += self._interrupt(place)
        self.ledger.discarded += sum(place.kept.values())
        self._end_process(place)
        self._start(place)

    def describe(self) -> str:
        """Return how many workers there are."""
        return f"{sum(place.ready for place in self.places)} of {self.workers} workers"

    def close(self) -> None:
        """Do nothing."""

    # The life of a worker.

    def _at(self, time: float, place: Place, happen: Callable[[], Event | None]) -> None:
        version = place.version
        act = lambda: happen() if place.version == version else None  # noqa: E731
        heapq.heappush(self._due, (time, next(self._number), act))

    def _start(self, place: Place) -> None:
        now = self.clock.now
        away = next((span for span in place.node.away if now in span), None)
        begin = now if away is None else away.end
        if begin != float("inf"):
            self._at(begin + BUILD_SECONDS, place, lambda: self._build(place))

    def _build(self, place: Place) -> Event | None:
        illness = place.node.illness(self.clock.now)
        if illness is not None and illness.kind == "unbuilt":
            return Broken(place.number, ERRORS["unbuilt"](), "trace", place.node.name)
        if self._is_away(self.clock.now):  # a worker reads its teacher
            return Broken(place.number, _away(), "trace", place.node.name)
        place.ready = True
        return Ready(place.number, place.node.name)

    def _end_process(self, place: Place) -> None:
        place.version += 1
        place.ready = place.computing = False
        place.queue.clear()
        place.kept.clear()

    def _schedule_faults(self) -> None:
        for place in self.places:
            for span in place.node.away:
                if span.start >= self.clock.now:
                    self._fault(span.start, place, node_lost=True)
        firsts = {place.node.name: place for place in reversed(self.places)}
        for place in firsts.values():
            for time in place.node.kills:
                if time >= self.clock.now:
                    self._fault(time, place, node_lost=False)

    def _fault(self, time: float, place: Place, *, node_lost: bool) -> None:
        act = lambda: self._lose(place, node_lost=node_lost)  # noqa: E731
        heapq.heappush(self._due, (time, next(self._number), act))

    def _lose(self, place: Place, *, node_lost: bool) -> Event | None:
        was_ready = place.ready
        self._report(place)
        if place.queue:
            self._interrupted_by_fault(place)
        self.ledger.in_flight += sum(place.kept.values())
        self._end_process(place)
        self._start(place)
        reason = "its node was reclaimed." if node_lost else "its process was killed."
        return Lost(place.number, reason, node_lost) if was_ready else None

    # The life of a job.

    def _begin(self, place: Place) -> None:
        job, now, node = place.queue[0], self.clock.now, place.node
        self.ledger.attempts[job.key] += 1
        if self.ledger.attempts[job.key] == 1:
            self.ledger.last_first_attempt = now
        if job.key in self.ledger.committed:
            self.ledger.begun_after_commit.append(job.key)
        place.begun, place.computing = now, False
        place.base = self.ledger.saved.get(job.key, 0.0)
        if job.key in place.kept:
            self._at(now + BEGIN_SECONDS, place, lambda: self._commit(place))
            return
        illness = node.illness(now)
        if illness is not None and illness.kind != "unbuilt" and not illness.at_commit:
            error = ERRORS[illness.kind]
            self._at(now + BEGIN_SECONDS, place, lambda: self._fail_by_node(place, error()))
            return
        if self._is_away(now):
            self._at(now + STORE_SECONDS, place, lambda: self._raise(place, _away()))
            return
        self._compute(place, job, self.works[job.key])

    def _compute(self, place: Place, job: Job[Any], work: Work) -> None:
        place.computing = True
        begin = place.begun + BEGIN_SECONDS
        self._at(begin + FIRST_PEEK_SECONDS, place, lambda: self._report(place))
        nature = work.nature if self.ledger.attempts[job.key] <= work.times else "good"
        if nature == "large" and job.split > 1:
            nature = "good"
        if nature == "hangs":
            place.computing = False
            return
        if nature == "good":
            end = begin + (work.seconds - place.base) / place.node.speed
            self._at(end, place, lambda: self._commit(place))
            return
        share = work.after * work.seconds
        end = begin + max(0.0, share - place.base) / place.node.speed
        happen = {
            "bad": lambda: self._raise(place, DataError(f"{job.shard}: a truncated image.")),
            "missing": lambda: self._raise(place, MissingDataError(f"{job.shard}: no such file.")),
            "forbidden": lambda: self._raise(place, StorageRefused(f"{job.shard}: access denied.")),
            "unanswered": lambda: self._raise(place, ERRORS["unreachable"]()),
            "large": lambda: self._raise(place, OutOfMemoryError(f"{job.shard}: 2 GiB wanted.")),
            "huge": lambda: self._raise(place, OutOfMemoryError(f"{job.shard}: 9 GiB wanted.")),
            "poison": lambda: self._lose(place, node_lost=False),
        }[nature]
        self._at(end, place, happen)

    def _commit(self, place: Place) -> Event:
        job, now = place.queue[0], self.clock.now
        illness = place.node.illness(now)
        if illness is not None and (illness.at_commit or illness.kind in STORE_KINDS):
            return self._fail_by_node(place, ERRORS[illness.kind]())
        if self._is_away(now):
            return self._raise(place, _away())
        self._report(place, complete=True)
        if place.computing:
            self.ledger.computed += self.works[job.key].seconds - place.base
        if job.key not in self.ledger.committed:
            self.ledger.useful += self.works[job.key].seconds
            self.ledger.committed[job.key] = now
            self.on_commit(job)
        place.kept.pop(job.key, None)
        for other in self.places:  # the fault that kept them from storage cost this work
            self.ledger.in_flight += other.kept.pop(job.key, 0.0)
        self._next(place)
        return Done(place.number, Receipt(job.key, job.shard))

    def _fail_by_node(self, place: Place, error: Exception) -> Event:
        self.ledger.failures[place.node.name] += 1
        return self._raise(place, error)

    def _raise(self, place: Place, error: Exception) -> Event:
        self._report(place)
        key = place.queue[0].key
        seconds = self.works[key].seconds
        is_done = place.computing and self._done(place) >= seconds
        is_outage = isinstance(error, StorageError) and error.retryable
        if is_done and is_outage and self.scenario.keeps_results:
            self.ledger.computed += seconds - place.base
            place.kept[key] = seconds - place.base
            place.computing = False
        self._interrupted_by_fault(place)
        self._next(place)
        return Raised(place.number, key, error, "trace")

    def _next(self, place: Place) -> None:
        place.queue.popleft()
        place.computing = False
        if place.queue:
            self._begin(place)

    def _interrupted_by_fault(self, place: Place) -> None:
        if place.computing:
            self.ledger.in_flight += self._interrupt(place)
        self.ledger.interruptions.append(self.clock.now)

    def _interrupt(self, place: Place) -> float:
        """Save what checkpoints save; return the seconds of work that are lost."""
        key = place.queue[0].key
        done, work = self._done(place), self.works[key]
        self.ledger.computed += done - place.base
        saved = place.base
        if work.checkpoint is not None:
            saved = max(saved, done // work.checkpoint * work.checkpoint)
        self.ledger.saved[key] = saved
        return done - saved

    def _done(self, place: Place) -> float:
        """Return the seconds of work at the running job, those of earlier attempts included."""
        seconds = max(0.0, self.clock.now - place.begun - BEGIN_SECONDS) * place.node.speed
        return min(self.works[place.queue[0].key].seconds, place.base + seconds)

    def _report(self, place: Place, *, complete: bool = False) -> None:
        if place.computing:
            key = place.queue[0].key
            share = 1.0 if complete else self._done(place) / self.works[key].seconds
            self._progress(key, int(share * UNITS), UNITS)

    def _is_away(self, time: float) -> bool:
        return any(time in span for span in self.scenario.outages)


def _away() -> Exception:
    return StorageError("s3://bucket: cannot be reached. Check the address.")
