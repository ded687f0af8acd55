"""The choice of a job for each worker that is free."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tasks.pools.dispatch_state import DispatchState
from tasks.pools.job_queue import JobRecord
from tasks.pools.seats import Seat

# Submitting a job takes milliseconds, so queueing behind jobs that are longer would gain nothing,
# and tie a job to a worker that may turn out slower than the others, or be lost.
QUEUE_SECONDS = 60.0
PROBES = 6  # attempts at a job with which a sick node may show that it is well again


class Assignment:
    """Chooses jobs for workers.

    Workers in good standing choose first. A worker on probation has one job at a time, and one that
    keeps failing is fed jobs that have not failed yet, so that the two can be told apart. Jobs that
    other drivers run come last, or are left to them.
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
        for seat in self._trusted:
            if not seat.queue and (record := self._take(seat, now) or self._take_held(seat, now)):
                yield seat, record
        for seat in state.seats:
            if seat.queue or seat in self._trusted or not seat.takes_jobs(now):
                continue
            if state.seats.is_sick(seat.node) and state.seats.is_probed(seat.node, now):
                continue
            if record := self._take(seat, now) or self._take_held(seat, now):
                yield seat, record
        if state.last_seconds is None or state.last_seconds > QUEUE_SECONDS:
            return
        if state.elsewhere is not None and state.elsewhere.waits:
            return  # another driver may begin what would wait here
        for depth in range(1, state.policy.in_flight):
            for seat in self._trusted:
                if state.queue.due <= len(state.seats):  # near the end, none waits behind another
                    return
                if len(seat.queue) == depth and (record := self._take(seat, now)):
                    yield seat, record

    def _take(self, seat: Seat, now: float) -> JobRecord | None:
        """Take a job that no other driver runs.

        A worker whose environment seems to be at fault begins with new jobs from the other end:
        jobs next to each other may share a fault of their own, such as a folder that is missing.
        """
        state = self._state
        if seat.refused:
            is_new = lambda record: record.error is None and not state.is_held(record)  # noqa: E731
            if record := state.queue.take(now, is_new, last=True):
                return record
        suits = self._suitability(seat, now)
        return state.queue.take(now, lambda record: not state.is_held(record) and suits(record))

    def _take_held(self, seat: Seat, now: float) -> JobRecord | None:
        """Take a job that another driver runs, unless it is left to it."""
        state = self._state
        if state.elsewhere is None or state.elsewhere.waits:
            return None
        return state.queue.take(now, self._suitability(seat, now))

    def _suitability(self, seat: Seat, now: float) -> Callable[[JobRecord], bool]:
        """Return the function that decides whether a worker may run a job now."""
        state = self._state
        others = [other for other in self._trusted if other is not seat]
        is_faulty = seat.failures_in_row >= state.policy.max_failures_in_row
        is_fit = not is_faulty and not state.seats.is_sick(seat.node)
        is_alone = not state.seats.are_others_at_work(seat)
        is_witness = is_alone or state.seats.nodes[seat.node].proven

        def suits(record: JobRecord) -> bool:
            if record.error is None and not record.losses:
                return True
            if record.home is not None and self._is_kept(record, record.home):
                untried = self._untried(record, now)
                return seat in untried or (seat.number == record.home and not untried)
            if state.verdicts.is_exhausted(record):
                return False
            idle = [other for other in others if not other.queue]
            if candidates := self._candidates(record):
                return seat.node in candidates and _is_fresh(record, seat, idle, candidates)
            if others and not is_fit:
                attempts = record.tries.total() + record.outages.total()
                return attempts < PROBES and record.tried_on <= {seat.node}
            if not is_witness and state.verdicts.needs_witness(record, seat):
                return False
            tried = record.tried_on
            if seat.node in tried and any(other.node not in tried for other in idle):
                return False
            return _is_fresh(record, seat, idle)

        return suits

    def _candidates(self, record: JobRecord) -> set[str]:
        """Return the nodes one of which must try a job next; empty: any may."""
        verdicts = self._state.verdicts
        if not verdicts.needs_another_node(record):
            return set()
        return verdicts.other_nodes(record.tried_on)

    def _untried(self, record: JobRecord, now: float) -> list[Seat]:
        """Return the idle workers that are to show whether only the home of a job is cut off.

        The more nodes have failed, the rarer, so that the finished result is rarely made again.
        """
        state = self._state
        enough = state.policy.max_attempts * 2 ** (len(record.outages) - 1)
        if record.outages.total() < enough:
            return []
        nodes = {seat.node for seat in state.seats.fit()} | self._candidates(record)
        return [
            seat
            for seat in state.seats
            if seat.node in nodes - record.outages.keys()
            and not seat.queue
            and seat.takes_jobs(now)
            and not (state.seats.is_sick(seat.node) and state.seats.is_probed(seat.node, now))
        ]

    def _is_kept(self, record: JobRecord, home: int) -> bool:
        """Return whether a job waits for the worker that may still hold its finished result.

        That is the one of its longest attempt. It waits while no other job succeeds: the store is
        away, and any worker would meet that.
        """
        return self._state.seats[home].ready and not self._state.others_succeed(record)


def _is_fresh(
    record: JobRecord, seat: Seat, idle: list[Seat], nodes: set[str] | None = None
) -> bool:
    """Return whether a worker has not failed with a job, or no idle one could take its place.

    Args:
        record: of the job.
        seat: of the worker.
        idle: other workers in good standing.
        nodes: where the job may run; None: anywhere.
    """
    return seat.number not in record.workers or not any(
        other.number not in record.workers and (nodes is None or other.node in nodes)
        for other in idle
    )
