"""The seats of a stage: each is a place for one worker, which may be absent, resting or at work.

A seat without a worker is absent, which is no failure. A seat whose worker fails without a success
is set aside and tried again later, with one job and after a growing delay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.execution import RetryPolicy
from tasks.pools.delays import REST_CAP, growing_delay
from tasks.pools.job_queue import JobRecord


@dataclass(eq=False)
class Seat:
    """One worker as the dispatcher sees it."""

    number: int
    since: float  # start of the wait for readiness, or of the running job
    absent_since: float | None  # None: its worker is ready
    node: str = ""  # where its worker is, or was last
    queue: deque[JobRecord] = field(default_factory=deque)  # the first one is running
    starts: int = 0  # in vain, since it was last ready
    failures_in_row: int = 0  # since its last success
    losses_in_row: int = 0  # of its process, since its last success or progress
    rest_until: float = 0.0
    rebuild_at: float | None = None  # its worker could not be built
    refusal: Exception | None = None  # last fault of its environment, since its last success
    traceback: str = ""
    outage: Exception | None = None  # with which it could not be built, since it was last ready
    loss: str = ""  # reason of the last one
    refused: set[str] = field(default_factory=set)  # keys of the jobs that met one
    refused_after: float = 0.0  # seconds, the longest of these attempts

    @property
    def ready(self) -> bool:
        """Return whether its worker is there."""
        return self.absent_since is None

    @property
    def on_probation(self) -> bool:
        """Return whether its worker has failed since its last success."""
        return self.failures_in_row > 0 or self.losses_in_row > 0

    def takes_jobs(self, now: float) -> bool:
        """Return whether its worker is there and not set aside."""
        return self.absent_since is None and now >= self.rest_until

    def rest(self, now: float, failures: int) -> float:
        """Set the worker aside; return the number of seconds."""
        delay = growing_delay(failures, f"{self.node} {self.number}", cap=REST_CAP)
        self.rest_until = now + delay
        return delay

    def succeeded(self) -> None:
        """Forget the failures of the worker."""
        self.failures_in_row = self.losses_in_row = 0
        self.refusal, self.traceback, self.rest_until = None, "", 0.0
        self.refused.clear()
        self.refused_after = 0.0

    def became_ready(self, node: str) -> None:
        """Note that the worker is there."""
        if node != self.node:  # a new machine has no record
            self.succeeded()
        self.node, self.absent_since, self.rebuild_at, self.starts = node, None, None, 0
        self.outage = None

    def empty(self, now: float) -> list[JobRecord]:
        """Note that the worker is gone; return its jobs, the running one first."""
        jobs = list(self.queue)
        for record in jobs:
            record.running = None
        self.queue.clear()
        self.since = now
        if self.absent_since is None:
            self.absent_since = now
        return jobs


class Seats:
    """All seats of a stage."""

    def __init__(self, workers: int, policy: RetryPolicy, now: float) -> None:
        self._policy = policy
        self._seats = [Seat(number, now, now) for number in range(workers)]
        self.any_was_ready = False

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats)

    def __len__(self) -> int:
        return len(self._seats)

    def __getitem__(self, worker: int) -> Seat:
        return self._seats[worker]

    @property
    def single_node(self) -> bool:
        """Return whether all workers are known to share one node."""
        first = self._seats[0].node
        return all(seat.node == first for seat in self._seats) and first != ""

    def trusted(self, now: float) -> list[Seat]:
        """Return those that take jobs and have not failed since their last success."""
        return [s for s in self._seats if s.takes_jobs(now) and not s.on_probation]

    def fit(self) -> list[Seat]:
        """Return those that are there and do not fail job after job."""
        limit = self._policy.max_failures_in_row
        return [s for s in self._seats if s.ready and s.failures_in_row < limit]

    def absence_limit(self) -> float:
        """Return after how many seconds an absent worker is no longer waited for."""
        ready = self._policy.ready_timeout_seconds
        return max(ready, self._policy.wait_for_workers_seconds) if self.any_was_ready else ready

    def absent_too_long(self, seat: Seat, now: float) -> bool:
        """Return whether a seat has been empty for so long that nothing is expected of it."""
        since = seat.absent_since
        return since is not None and now - since > self.absence_limit()

    def refuses(self, seat: Seat, now: float) -> bool:
        """Return whether a worker cannot be built, or its environment failed several jobs.

        One that is at work for much longer than it took to fail seems to be well again.
        """
        if seat.refusal is None or (seat.queue and now - seat.since > 2 * seat.refused_after):
            return False
        return not seat.refused or len(seat.refused) >= self._policy.max_failures_in_row

    def lost_too_often(self, seat: Seat) -> bool:
        """Return whether the process of a worker ends again and again."""
        return seat.losses_in_row > self._policy.losses_per_worker

    def are_hopeless(self, now: float) -> bool:
        """Return whether nothing is to be expected of any worker."""
        return all(
            self.refuses(seat, now) or self.lost_too_often(seat) or self.absent_too_long(seat, now)
            for seat in self._seats
        )
