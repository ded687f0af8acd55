"""The state of a stage while it is dispatched, and the steps that change it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt
from tasks.observer import Observer
from tasks.pools.events import Pool
from tasks.pools.failures import Failure, describe_error
from tasks.pools.job_queue import JobQueue, JobRecord
from tasks.pools.outage import Outage
from tasks.pools.seats import Seat, Seats
from tasks.pools.verdicts import Verdicts

Clock = Callable[[], float]  # seconds, monotonic


class Elsewhere(Protocol):
    """The jobs that other living drivers run, as far as is known; asked often, so answers fast."""

    @property
    def waits(self) -> bool:
        """Return whether jobs are left to the drivers that run them; otherwise they come last."""
        ...

    def holds(self, shard: str) -> bool:
        """Return whether another driver runs a job."""
        ...

    def precedes(self, shard: str) -> bool:
        """Return whether another driver began a job that runs here, too, before this one did."""
        ...


class DispatchState:
    """The jobs, the workers and the results of a stage.

    Args:
        jobs: with unique keys.
        pool: the workers.
        policy: limits and timeouts.
        stage: name for messages and for the observer.
        observer: receives the events of the jobs.
        clock: returns the time.
        elsewhere: the jobs of other drivers; None: there are none.
    """

    def __init__(
        self,
        jobs: Sequence[Job[Any]],
        pool: Pool,
        policy: RetryPolicy,
        *,
        stage: str = "jobs",
        observer: Observer | None = None,
        clock: Clock = time.monotonic,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.elsewhere = elsewhere
        self.pool, self.policy, self.stage = pool, policy, stage
        self.observer, self.clock = observer, clock
        self.records = {job.key: JobRecord(job) for job in jobs}
        self.unfinished = dict(self.records)
        self.queue = JobQueue(self.records.values())
        self.seats = Seats(pool.workers, policy, clock)
        self.verdicts = Verdicts(policy, self.seats, clock)
        self.receipts: dict[str, Receipt] = {}  # by job key
        self.failed: dict[str, Failure] = {}  # by shard
        self.losses = 0  # of workers
        self.last_done: float | None = None
        self.last_seconds: float | None = None  # of a job, from its start to its result
        self.outage = Outage()  # ends with a success

    def is_held(self, record: JobRecord) -> bool:
        """Return whether another driver runs a job."""
        return self.elsewhere is not None and self.elsewhere.holds(record.job.shard)

    @property
    def left(self) -> tuple[Job[Any], ...]:
        """Return the jobs that are left to other drivers; none while there is anything else."""
        if self.elsewhere is None or not self.elsewhere.waits:
            return ()
        if any(seat.queue for seat in self.seats):
            return ()
        records = self.unfinished.values()
        return tuple(r.job for r in records) if all(map(self.is_held, records)) else ()

    def submit(self, seat: Seat, record: JobRecord) -> None:
        """Append a job to the queue of a worker."""
        seat.queue.append(record)
        if len(seat.queue) == 1:
            self._start_first(seat)
        self.pool.submit(seat.number, record.job)

    def remove(self, seat: Seat, key: str) -> JobRecord | None:
        """Remove an ended job from the queue of its worker, if it is there; the next one starts."""
        record = next((record for record in seat.queue if record.job.key == key), None)
        if record is not None:
            was_running = seat.queue[0] is record
            seat.queue.remove(record)
            record.running = None
            if was_running:
                self._start_first(seat)
        return record

    def _start_first(self, seat: Seat) -> None:
        """Start the clock of the first job in a queue."""
        seat.since = self.clock()
        if seat.queue:
            seat.queue[0].begin(seat.number)
            if self.observer:
                self.observer.job_started(self.stage, seat.queue[0].job.shard)

    def vacate(self, seat: Seat) -> JobRecord | None:
        """Empty the queue of a worker that is gone or is to be restarted.

        The jobs that waited there are the next ones to run; the one that was running is returned.
        Results that the worker may have held are gone.
        """
        for record in self.unfinished.values():
            if record.home == seat.number:
                record.home = None
        jobs = seat.empty(self.clock())
        for record in reversed(jobs[1:]):
            if record.job.key in self.unfinished:
                self.queue.put(record, first=True)
        return jobs[0] if jobs and jobs[0].job.key in self.unfinished else None

    def restart(self, seat: Seat) -> None:
        """Build a worker again; its jobs are the next ones to run."""
        running = self.vacate(seat)
        if running is not None:
            self.queue.put(running, first=True)
        seat.rebuild_at = None
        self.pool.restart(seat.number)

    def finish(self, receipt: Receipt) -> None:
        """Note that a job is done."""
        record = self.unfinished.pop(receipt.key)
        self.queue.discard(record)
        self.receipts[receipt.key] = receipt
        if self.observer:
            self.observer.job_finished(self.stage, receipt)
        for text in receipt.notices:
            self.notice(f"{receipt.shard}: {text}")

    def put_back(
        self,
        record: JobRecord,
        reason: str,
        *,
        first: bool = False,
        not_before: float | None = None,
    ) -> None:
        """Let a job be tried again, as the first or the last one, or from a certain time on."""
        record.shown = None
        if not_before is not None:
            self.queue.put_later(record, not_before)
        else:
            self.queue.put(record, first=first)
        if self.observer:
            self.observer.job_retried(self.stage, record.job.shard, reason)

    def give_up(self, record: JobRecord, failure: Failure) -> None:
        """Record why a job is not tried again."""
        del self.unfinished[record.job.key]
        self.queue.discard(record)
        self.failed[record.job.shard] = failure
        if self.observer:
            self.observer.job_failed(self.stage, record.job.shard, describe_error(failure.error))

    def others_succeed(self, record: JobRecord) -> bool:
        """Return whether a job met an outage again, though another was done in the meantime."""
        since, done = record.outage.since, self.last_done
        return since is not None and done is not None and since < done <= record.failed_at

    def notice(self, text: str) -> None:
        """Tell the observer about something that the stage copes with."""
        if self.observer:
            self.observer.stage_notice(self.stage, text)
