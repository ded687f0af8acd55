"""The choice of a job for each worker that is free."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.pools.dispatch_state import DispatchState
from tasks.pools.job_queue import JobRecord
from tasks.pools.seats import Seat

# Submitting a job takes milliseconds, so queueing behind jobs that are longer would gain nothing,
# and tie a job to a worker that may turn out slower than the others, or be lost.
QUEUE_SECONDS = 60.0


class Assignment:
    """Chooses jobs for workers.

    Workers in good standing choose first. A worker on probation has one job at a time, and one that
    keeps failing is fed jobs that have not failed yet, so that the two can be told apart.
    """

    def __init__(self, state: DispatchState) -> None:
        self._state = state
        self._trusted: list[Seat] = []

    def choices(self, now: float) -> Iterator[tuple[Seat, JobRecord]]:
        """Yield a worker and the job that it is to run; the caller submits it before the next.

        Queues are filled breadth-first, so that no job waits behind another beside an idle worker.
        """
        state = self._state
        if not state.queue:
            return
        self._trusted = state.seats.trusted(now)
        resting = [s for s in state.seats if s.on_probation and s.takes_jobs(now)]
        for seat in (*self._trusted, *resting):
            if not seat.queue and (record := self._take(seat, now)):
                yield seat, record
        if state.last_seconds is None or state.last_seconds > QUEUE_SECONDS:
            return
        for depth in range(1, state.policy.in_flight):
            for seat in self._trusted:
                if state.queue.due <= len(state.seats):  # near the end, none waits behind another
                    return
                if len(seat.queue) == depth and (record := self._take(seat, now)):
                    yield seat, record

    def _take(self, seat: Seat, now: float) -> JobRecord | None:
        return self._state.queue.take(now, lambda record: self._suits(record, seat, now))

    def _suits(self, record: JobRecord, seat: Seat, now: float) -> bool:
        """Return whether a worker may run a job now, rather than leave it to another worker."""
        if record.home == seat.number:
            return True
        if record.home is not None and self._is_kept(record, record.home, now):
            return False
        if record.is_clean:
            return True
        limit = self._state.policy.max_failures_in_row
        others = [other for other in self._trusted if other is not seat]
        if others and seat.failures_in_row >= limit:
            return False
        if seat.node in record.failed_on:
            verdicts = self._state.verdicts
            if verdicts.needs_another_node(record) and verdicts.has_other_node(record.failed_on):
                return False
            if any(not o.queue and o.node not in record.failed_on for o in others):
                return False
        fresh = [s for s in others if not s.queue and s.number not in record.workers]
        return not (seat.number in record.workers and fresh)

    def _is_kept(self, record: JobRecord, home: int, now: float) -> bool:
        """Return whether a job waits for the worker that may still hold its finished result.

        It does while no other job succeeds: the store is away, and any worker would meet that.
        """
        last_done = self._state.last_done
        others_succeed = last_done is not None and last_done > record.failed_at
        return self._state.seats[home].ready and not others_succeed
