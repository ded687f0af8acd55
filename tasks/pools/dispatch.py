"""The dispatcher: assigns the jobs of a stage to workers until each is done or given up.

This is pure logic over a `Pool`, in parts: `assignment` chooses a job for each free worker,
`outcomes` applies events, `verdicts` decides whether a job that failed is tried again, and
`endings` whether a stage can go on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tasks.execution import RetryPolicy
from tasks.jobs import Job
from tasks.observer import Observer
from tasks.pools.assignment import Assignment
from tasks.pools.dispatch_state import Clock, DispatchState, Elsewhere
from tasks.pools.endings import Endings
from tasks.pools.events import Pool
from tasks.pools.failures import DispatchResult
from tasks.pools.outcomes import Outcomes
from tasks.pools.seats import Seat

PATIENCE_DOUBLINGS = 4  # of the time that a worker has to start, while it does not


def dispatch(
    jobs: Sequence[Job[Any]],
    pool: Pool,
    *,
    policy: RetryPolicy | None = None,
    stage: str = "jobs",
    observer: Observer | None = None,
    clock: Clock = time.monotonic,
    elsewhere: Elsewhere | None = None,
) -> DispatchResult:
    """Run jobs, in the order given as far as workers allow, until each is done or given up.

    The stage goes on while any worker is at work, and waits for a while when none is.

    Args:
        jobs: with unique keys; put the longest first.
        pool: a new one, whose workers nobody has used.
        policy: limits and timeouts.
        stage: name for messages and for the observer.
        observer: receives the events of the jobs.
        clock: returns the time.
        elsewhere: the jobs that other drivers run. Where those are left to them, it ends when
            nothing else is to do, and returns them.

    Raises:
        ClusterError: there was no worker for too long, or workers were lost too often.
        DistillError: every worker refuses to work, or a service is away for too long.
    """
    state = DispatchState(
        jobs,
        pool,
        policy or RetryPolicy(),
        stage=stage,
        observer=observer,
        clock=clock,
        elsewhere=elsewhere,
    )
    return _Dispatcher(state).run()


class _Dispatcher:
    def __init__(self, state: DispatchState) -> None:
        self.state = state
        self.assignment, self.outcomes = Assignment(state), Outcomes(state)
        self.endings = Endings(state)

    def run(self) -> DispatchResult:
        state = self.state
        while state.unfinished and not state.left:
            for seat, record in self.assignment.choices(state.clock()):
                state.submit(seat, record)
            for event in state.pool.wait(self._seconds_to_wait(), self._report_progress):
                self.outcomes.apply(event)
            now = state.clock()
            self._check_starts(now)
            self._check_deadlines(now)
            self._leave_to_others()
            self.endings.check(now)
        receipts = tuple(state.receipts.values())
        return DispatchResult(receipts, state.failed, state.losses, state.left)

    def _seconds_to_wait(self) -> float:
        """Return the time until something is due, at most one tick."""
        state, now = self.state, self.state.clock()
        soonest = now + state.policy.tick_seconds
        general = [state.queue.next_time, state.seats.settled_at]
        for moment in general:
            if moment is not None and now < moment < soonest:
                soonest = moment
        limit = state.seats.absence_limit()
        for seat in state.seats:
            for moment in self._moments(seat, limit):
                if now < moment < soonest:
                    soonest = moment
        return soonest - now

    def _moments(self, seat: Seat, limit: float) -> tuple[float, ...]:
        """Return when something may be due that concerns a worker; some times have passed."""
        if seat.absent_since is not None:
            start = seat.rebuild_at or seat.since + self._patience(seat.starts)
            return start, seat.absent_since + limit
        if not seat.queue:
            return (seat.rest_until,) if seat.rest_until else ()
        deadline = self.state.policy.job_timeout_seconds
        overdue = () if deadline is None else (seat.since + deadline,)
        if not seat.on_probation:
            return overdue
        # A probe is passed once it runs for longer than those that failed.
        node = self.state.seats.nodes[seat.node]
        return *overdue, seat.since + 2 * node.failed_after + 1

    def _patience(self, starts: int) -> float:
        """Return how long a worker may take to be ready before it is started once more."""
        return self.state.policy.ready_timeout_seconds * 2.0 ** min(starts, PATIENCE_DOUBLINGS)

    def _check_starts(self, now: float) -> None:
        """Build workers that could not be built again, and those that are not ready for long."""
        for seat in self.state.seats:
            if seat.absent_since is None:
                continue
            if seat.rebuild_at is not None:
                if now >= seat.rebuild_at:
                    self.state.restart(seat)
            elif now - seat.since >= self._patience(seat.starts):
                seat.starts += 1
                self.state.restart(seat)

    def _check_deadlines(self, now: float) -> None:
        limit = self.state.policy.job_timeout_seconds
        if limit is None:
            return
        for seat in self.state.seats:
            if seat.queue and now - seat.since >= limit:
                self.outcomes.overdue(seat, limit)

    def _leave_to_others(self) -> None:
        """Stop jobs that another driver began a moment earlier, where those are left to it."""
        elsewhere = self.state.elsewhere
        if elsewhere is None or not elsewhere.waits:
            return
        for seat in self.state.seats:
            if seat.queue and elsewhere.precedes(seat.queue[0].job.shard):
                record = self.state.vacate(seat)
                self.state.pool.restart(seat.number)
                if record is not None:
                    self.state.put_back(record, "another driver began it before.")

    def _report_progress(self, key: str, done: int, total: int) -> None:
        """Take note of the progress of jobs that run, and pass on what is new."""
        state = self.state
        record = state.records.get(key)
        if record is None or record.running is None or total <= 0:
            return
        if record.reached(done / total):
            self.outcomes.advanced(record)
        if state.observer is not None and record.shown != (done, total):
            record.shown = (done, total)
            state.observer.job_progress(state.stage, record.job.shard, done, total)
