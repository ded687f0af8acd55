"""The dispatcher: assigns the jobs of a stage to workers until each is done or given up.

This is pure logic over a `Pool`; `tasks.pools.failures` decides what a failure costs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill_core.errors import ClusterError, DistillError, OutOfMemoryError
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt
from tasks.observer import Observer
from tasks.pools.events import Broken, Done, Event, Lost, Pool, Raised, Ready
from tasks.pools.failures import (
    DispatchResult,
    Failure,
    FailureCounts,
    RemoteTraceback,
    describe_error,
)

Clock = Callable[[], float]  # seconds, monotonic


@dataclass
class _WorkerState:
    """One worker as the dispatcher sees it."""

    since: float  # start of the wait for readiness, or of the running job
    ready: bool = False
    queue: deque[Job[Any]] = field(default_factory=deque)  # the first one is running
    failures_in_row: int = 0


def dispatch(
    jobs: Sequence[Job[Any]],
    pool: Pool,
    *,
    policy: RetryPolicy | None = None,
    stage: str = "jobs",
    observer: Observer | None = None,
    clock: Clock = time.monotonic,
) -> DispatchResult:
    """Run jobs, in the order given as far as workers allow, until each is done or given up.

    Args:
        jobs: with unique keys; put the longest first.
        pool: a new one, whose workers nobody has used.
        policy: limits and timeouts.
        stage: name for messages and for the observer.
        observer: receives the events of the jobs.
        clock: returns the time.

    Raises:
        ClusterError: no worker became ready in time, or workers were lost too often.
        DistillError: a worker could not be built, and another attempt would not change that.
    """
    return _Dispatcher(jobs, pool, policy or RetryPolicy(), stage, observer, clock).run()


class _Dispatcher:
    def __init__(
        self,
        jobs: Sequence[Job[Any]],
        pool: Pool,
        policy: RetryPolicy,
        stage: str,
        observer: Observer | None,
        clock: Clock,
    ) -> None:
        self.pool, self.policy, self.stage = pool, policy, stage
        self.observer, self.clock = observer, clock
        self.pending = deque(jobs)
        self.workers = [_WorkerState(since=clock()) for _ in range(pool.workers)]
        self.counts = FailureCounts(policy, stage=stage, workers=pool.workers)
        self.progress: dict[str, tuple[int, int]] = {}  # by job key
        self.receipts: list[Receipt] = []
        self.failed: dict[str, Failure] = {}  # by shard

    def run(self) -> DispatchResult:
        while self.pending or any(state.queue for state in self.workers):
            self._assign()
            for event in self.pool.wait(self.policy.tick_seconds, self._report_progress):
                self._handle(event)
            self._check_faulty_workers()
            self._check_readiness()
            self._check_deadlines()
        return DispatchResult(tuple(self.receipts), self.failed, self.counts.losses)

    def _assign(self) -> None:
        """Fill the queues breadth-first, so that no job waits behind another beside an idle worker.

        A second job in a queue hides latency while many are pending; near the end it would only
        tie a job to a busy worker.
        """
        for depth in range(self.policy.in_flight):
            for worker, state in enumerate(self.workers):
                if depth and len(self.pending) <= len(self.workers):
                    return
                if self.pending and state.ready and len(state.queue) == depth:
                    self._submit(worker, self.pending.popleft())

    def _submit(self, worker: int, job: Job[Any]) -> None:
        state = self.workers[worker]
        state.queue.append(job)
        if len(state.queue) == 1:
            self._start_first(state)
        self.pool.submit(worker, job)

    def _start_first(self, state: _WorkerState) -> None:
        """Start the clock of the first job in a queue."""
        state.since = self.clock()
        if self.observer and state.queue:
            self.observer.job_started(self.stage, state.queue[0].shard)

    def _handle(self, event: Event) -> None:
        match event:
            case Ready(worker):
                self.workers[worker].ready = True
            case Broken(worker, error, traceback):
                self._broken(worker, error, traceback)
            case Done(worker, receipt):
                self._done(worker, receipt)
            case Raised(worker, key, error, traceback):
                self._raised(worker, key, error, traceback)
            case Lost(worker, reason):
                self._count_loss(self._reset(worker), reason)

    def _done(self, worker: int, receipt: Receipt) -> None:
        self._remove(worker, receipt.key)
        self.workers[worker].failures_in_row = 0
        self.counts.job_finished()
        self.receipts.append(receipt)
        if self.observer:
            self.observer.job_finished(self.stage, receipt)

    def _raised(self, worker: int, key: str, error: Exception, traceback: str) -> None:
        job = self._remove(worker, key)
        if isinstance(error, ClusterError):  # raised by a gang that lost a process
            self._count_loss(job, str(error))
        elif isinstance(error, OutOfMemoryError):
            failure = self.counts.device_full(job, error, traceback)
            self._retry_or_fail(replace(job, split=2), failure, describe_error(error))
            self._restart(worker)  # the memory of its process is fragmented
        else:
            self.workers[worker].failures_in_row += 1
            self._count_attempt(job, error, traceback)

    def _broken(self, worker: int, error: Exception, traceback: str) -> None:
        if not (isinstance(error, DistillError) and error.retryable):
            raise error from RemoteTraceback(traceback)
        self._count_loss(None, str(error))
        self._restart(worker)

    def _count_attempt(self, job: Job[Any], error: Exception, traceback: str) -> None:
        failure = self.counts.job_raised(job, error, traceback)
        self._retry_or_fail(job, failure, describe_error(error))

    def _count_loss(self, running: Job[Any] | None, reason: str) -> None:
        """Count the loss of a worker; its running job, if any, is the next one to run."""
        failure = self.counts.worker_lost(running, reason)
        if running is not None:
            self._retry_or_fail(running, failure, reason, first=True)
        self.counts.check_budget(reason)

    def _retry_or_fail(
        self, job: Job[Any], failure: Failure | None, reason: str, *, first: bool = False
    ) -> None:
        """Put a job back, as the first or the last one, or record why it is given up."""
        if failure is not None:
            self.failed[job.shard] = failure
            if self.observer:
                self.observer.job_failed(self.stage, job.shard, describe_error(failure.error))
            return
        self.progress.pop(job.key, None)
        (self.pending.appendleft if first else self.pending.append)(job)
        if self.observer:
            self.observer.job_retried(self.stage, job.shard, reason)

    def _remove(self, worker: int, key: str) -> Job[Any]:
        """Remove an ended job from its worker's queue; the next one starts now."""
        state = self.workers[worker]
        job = next(job for job in state.queue if job.key == key)
        state.queue.remove(job)
        self._start_first(state)
        return job

    def _reset(self, worker: int) -> Job[Any] | None:
        """Empty a worker's queue, put back the jobs that were waiting, return the running one."""
        state = self.workers[worker]
        jobs = list(state.queue)
        state.queue.clear()
        state.ready, state.since, state.failures_in_row = False, self.clock(), 0
        self.pending.extendleft(reversed(jobs[1:]))
        return jobs[0] if jobs else None

    def _restart(self, worker: int) -> None:
        running = self._reset(worker)
        if running is not None:
            self.pending.appendleft(running)
        self.pool.restart(worker)

    def _check_faulty_workers(self) -> None:
        """Rebuild a worker that fails every job: a broken device must not use up all attempts."""
        for worker, state in enumerate(self.workers):
            if state.failures_in_row >= self.policy.max_failures_in_row:
                self._restart(worker)

    def _check_readiness(self) -> None:
        limit = self.policy.ready_timeout_seconds
        for worker, state in enumerate(self.workers):
            if state.ready or self.clock() - state.since <= limit:
                continue
            reason = f"a worker was not ready within {limit:g} s ({self.pool.describe()})."
            if not any(other.ready for other in self.workers):
                raise ClusterError(
                    f"{self.stage}: {reason} Free or add resources, then run `distill resume`."
                )
            self._count_loss(None, reason)
            self._restart(worker)

    def _check_deadlines(self) -> None:
        limit = self.policy.job_timeout_seconds
        if limit is None:
            return
        for worker, state in enumerate(self.workers):
            if state.queue and self.clock() - state.since > limit:
                job = self._reset(worker)
                self.pool.restart(worker)
                assert job is not None
                error = ClusterError(f"{job.shard}: ran for more than {limit:g} s and was killed.")
                self._count_attempt(job, error, "")

    def _report_progress(self, key: str, done: int, total: int) -> None:
        """Pass on progress that is new, of jobs that run."""
        if self.observer is None or self.progress.get(key) == (done, total):
            return
        for state in self.workers:
            if state.queue and state.queue[0].key == key:
                self.progress[key] = (done, total)
                self.observer.job_progress(self.stage, state.queue[0].shard, done, total)
