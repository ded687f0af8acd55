"""Which job runs on which worker now, and what happens when something breaks. Pure logic.

Two kinds of failure are kept apart. What our own code raises counts as an attempt of that job.
What befalls a worker (its process, its node) counts against a budget of the whole stage, which is
renewed whenever a job is finished, and costs the job nothing, except that a job which keeps losing
its worker is given up, too: a shard that crashes every process must not take the stage with it.
A full device is neither: the job comes back once, to be computed in halves.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from distill_core.errors import (
    ClusterError,
    ConfigError,
    DistillError,
    DivergedError,
    OutOfMemoryError,
    StorageRefused,
)
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt
from tasks.observer import Observer
from tasks.pools import outcomes
from tasks.pools.events import Broken, Done, Event, Lost, Pool, Raised, Ready
from tasks.pools.outcomes import DispatchResult, Failure, describe_error

Clock = Callable[[], float]  # seconds, monotonic
FINAL = (DivergedError, ConfigError, StorageRefused)  # another attempt would end the same way
NO_ROOM = (
    "It did not fit a second time, in a new process and in halves. Recover in smaller launches "
    "(--groups 1), give each worker more of a GPU (--num-gpus), use a larger one, or lower the "
    "stage's batch size (posttrain: micro_batch), which is another result."
)


@dataclass
class _Seat:
    """One worker as the dispatcher sees it."""

    since: float  # start of the wait for readiness, or of the running job
    ready: bool = False
    line: deque[Job] = field(default_factory=deque)  # the first one is running
    failures_in_row: int = 0


def dispatch(
    jobs: Sequence[Job],
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
        observer: told what happens.
        clock: tells the time.

    Raises:
        ClusterError: no worker became ready in time, or workers were lost too often.
        DistillError: a worker could not be built, for a reason that another try will not mend.
    """
    return _Dispatcher(jobs, pool, policy or RetryPolicy(), stage, observer, clock).run()


class _Dispatcher:
    def __init__(
        self,
        jobs: Sequence[Job],
        pool: Pool,
        policy: RetryPolicy,
        stage: str,
        observer: Observer | None,
        clock: Clock,
    ) -> None:
        self.pool, self.policy, self.stage = pool, policy, stage
        self.observer, self.clock = observer, clock
        self.queue = deque(jobs)
        self.seats = [_Seat(since=clock()) for _ in range(pool.workers)]
        self.attempts: Counter[str] = Counter()  # by job key
        self.losses_of: Counter[str] = Counter()  # by key of the job that was running
        self.losses = 0
        self.losses_in_vain = 0  # since a job was last finished
        self.progress: dict[str, tuple[int, int]] = {}
        self.receipts: list[Receipt] = []
        self.failed: dict[str, Failure] = {}

    def run(self) -> DispatchResult:
        while self.queue or any(seat.line for seat in self.seats):
            self._feed()
            for event in self.pool.wait(self.policy.tick_seconds, self._note):
                self._handle(event)
            self._check_sick_workers()
            self._check_readiness()
            self._check_deadlines()
        return DispatchResult(tuple(self.receipts), self.failed, self.losses)

    def _feed(self) -> None:
        """Fill the lines breadth-first, so that no job waits behind another beside an idle worker.

        The second place in a line hides latency while there is plenty to do; near the end it would
        only tie a job to a busy worker.
        """
        for depth in range(self.policy.in_flight):
            for number, seat in enumerate(self.seats):
                if depth and len(self.queue) <= len(self.seats):
                    return
                if self.queue and seat.ready and len(seat.line) == depth:
                    self._submit(number, self.queue.popleft())

    def _submit(self, worker: int, job: Job) -> None:
        seat = self.seats[worker]
        seat.line.append(job)
        if len(seat.line) == 1:
            self._begin(seat)
        self.pool.submit(worker, job)

    def _begin(self, seat: _Seat) -> None:
        """Start the clock of the first job in a line."""
        seat.since = self.clock()
        if self.observer and seat.line:
            self.observer.job_started(self.stage, seat.line[0].shard)

    def _handle(self, event: Event) -> None:
        match event:
            case Ready(worker):
                self.seats[worker].ready = True
            case Broken(worker, error, traceback):
                self._broken(worker, error, traceback)
            case Done(worker, receipt):
                self._done(worker, receipt)
            case Raised(worker, key, error, traceback):
                self._raised(worker, key, error, traceback)
            case Lost(worker, reason):
                self._count_loss(self._clear(worker), reason)

    def _done(self, worker: int, receipt: Receipt) -> None:
        self._take(worker, receipt.key)
        self.seats[worker].failures_in_row = self.losses_in_vain = 0
        self.receipts.append(receipt)
        if self.observer:
            self.observer.job_finished(self.stage, receipt)

    def _raised(self, worker: int, key: str, error: Exception, traceback: str) -> None:
        job = self._take(worker, key)
        if isinstance(error, ClusterError):  # a gang's: nothing that the job did
            self._count_loss(job, str(error))
            return
        if isinstance(error, OutOfMemoryError):
            self._split(job, error, traceback)
            self._restart(worker)  # the memory of its process is in pieces
            return
        self.seats[worker].failures_in_row += 1
        self._count_attempt(job, error, traceback)

    def _broken(self, worker: int, error: Exception, traceback: str) -> None:
        if not (isinstance(error, DistillError) and error.retryable):
            raise error from outcomes.RemoteTraceback(traceback)
        self._count_loss(None, str(error))
        self._restart(worker)

    def _clear(self, worker: int) -> Job | None:
        """Take everything from a worker, put back what was not running, return what was."""
        seat = self.seats[worker]
        jobs = list(seat.line)
        seat.line.clear()
        seat.ready, seat.since, seat.failures_in_row = False, self.clock(), 0
        self.queue.extendleft(reversed(jobs[1:]))
        return jobs[0] if jobs else None

    def _count_loss(self, running: Job | None, reason: str) -> None:
        """Count against the budget; `running` is the job that was at work, if any."""
        self.losses += 1
        self.losses_in_vain += 1
        if running is not None:
            self._requeue_lost(running, reason)
        if self.losses_in_vain > (budget := self.policy.losses_per_worker * len(self.seats)):
            raise ClusterError(
                f"{self.stage}: workers were lost {self.losses_in_vain} times, more than the "
                f"{budget} that are put up with while no job is finished; the last time: {reason} "
                "What is done is kept; look after the cluster, then resume."
            )

    def _requeue_lost(self, job: Job, reason: str) -> None:
        """Put a job back uncounted; one that loses every worker is given up, and forgiven."""
        self.losses_of[job.key] += 1
        if (count := self.losses_of[job.key]) < self.policy.max_losses_per_job:
            self._retry(job, reason, self.queue.appendleft)
            return
        self.losses_in_vain = max(0, self.losses_in_vain - count)
        message = f"{job.shard}: its worker was lost {count} times; the last time: {reason}"
        self._fail(job, Failure(count, ClusterError(message), ""))

    def _count_attempt(self, job: Job, error: Exception, traceback: str) -> None:
        self.attempts[job.key] += 1
        count = self.attempts[job.key]
        if count < self.policy.max_attempts and not isinstance(error, FINAL):
            self._retry(job, describe_error(error), self.queue.append)
            return
        self._fail(job, Failure(count, error, traceback))

    def _split(self, job: Job, error: Exception, traceback: str) -> None:
        """Let a job be computed in halves; give it up if it is already."""
        self.attempts[job.key] += 1
        if job.split == 1:
            self._retry(replace(job, split=2), describe_error(error), self.queue.append)
            return
        hint = OutOfMemoryError(f"{error} {NO_ROOM}")
        self._fail(job, Failure(self.attempts[job.key], hint, traceback))

    def _retry(self, job: Job, reason: str, requeue: Callable[[Job], None]) -> None:
        self.progress.pop(job.key, None)
        requeue(job)
        if self.observer:
            self.observer.job_retried(self.stage, job.shard, reason)

    def _fail(self, job: Job, failure: Failure) -> None:
        self.failed[job.shard] = failure
        if self.observer:
            self.observer.job_failed(self.stage, job.shard, describe_error(failure.error))

    def _take(self, worker: int, key: str) -> Job:
        """Remove an ended job from its worker's line; the next one starts now."""
        seat = self.seats[worker]
        job = next(job for job in seat.line if job.key == key)
        seat.line.remove(job)
        self._begin(seat)
        return job

    def _restart(self, worker: int) -> None:
        running = self._clear(worker)
        if running is not None:
            self.queue.appendleft(running)
        self.pool.restart(worker)

    def _check_sick_workers(self) -> None:
        """Build a worker anew that fails every job: a broken device must not eat all attempts."""
        for number, seat in enumerate(self.seats):
            if seat.failures_in_row >= self.policy.max_failures_in_row:
                self._restart(number)

    def _check_readiness(self) -> None:
        limit = self.policy.ready_timeout_seconds
        for number, seat in enumerate(self.seats):
            if seat.ready or self.clock() - seat.since <= limit:
                continue
            reason = f"a worker was not ready within {limit:g} s ({self.pool.describe()})."
            if not any(seat.ready for seat in self.seats):
                raise ClusterError(f"{self.stage}: {reason} Free or add resources, then resume.")
            self._count_loss(None, reason)
            self._restart(number)

    def _check_deadlines(self) -> None:
        limit = self.policy.job_timeout_seconds
        if limit is None:
            return
        for number, seat in enumerate(self.seats):
            if seat.line and self.clock() - seat.since > limit:
                job = self._clear(number)
                self.pool.restart(number)
                assert job is not None
                error = ClusterError(f"{job.shard}: ran for more than {limit:g} s and was killed.")
                self._count_attempt(job, error, "")

    def _note(self, key: str, done: int, total: int) -> None:
        """Pass on progress that is news, of jobs that run."""
        if self.observer is None or self.progress.get(key) == (done, total):
            return
        for seat in self.seats:
            if seat.line and seat.line[0].key == key:
                self.progress[key] = (done, total)
                self.observer.job_progress(self.stage, seat.line[0].shard, done, total)
