"""The seats of a stage: each is a place for one worker, which may be absent, resting or at work.

A seat without a worker is absent, which is no failure. A seat whose worker fails without a success
is set aside and tried again later, with one job and after a growing delay.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from distill_core.storage.delays import REST_CAP, growing_delay
from tasks.execution import RetryPolicy
from tasks.pools.job_queue import JobRecord
from tasks.pools.node_record import NodeRecord

SETTLE_SECONDS = 60.0  # after the first worker, in which the first one of each seat may come


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

    def rest(self, now: float, failures: int) -> None:
        """Set the worker aside after a number of failures in a row."""
        name = f"{self.node} {self.number}"
        self.rest_until = now + growing_delay(failures, name, cap=REST_CAP)

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
        self.absent_since, self.rebuild_at, self.starts = None, None, 0
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
    """All seats of a stage.

    A seat that never had a worker is no other node, and nothing is expected of it, once another
    worker was ready for `SETTLE_SECONDS`: the cluster may have no place for it.

    Args:
        workers: how many seats.
        policy: the limits.
        clock: returns the time.
    """

    def __init__(self, workers: int, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self._policy, self._clock = policy, clock
        now = clock()
        self._seats = [Seat(number, now, now) for number in range(workers)]
        self.settled_at: float | None = None  # None: no worker was ready yet
        self._nodes: set[str] = set()  # where the workers are, or were last
        self._all_placed = False
        self.nodes: defaultdict[str, NodeRecord] = defaultdict(NodeRecord)

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats)

    def __len__(self) -> int:
        return len(self._seats)

    def __getitem__(self, worker: int) -> Seat:
        return self._seats[worker]

    @property
    def single_node(self) -> bool:
        """Return whether all workers are known to share one node."""
        return len(self._nodes) == 1 and (self._all_placed or self._is_settled())

    @property
    def any_was_ready(self) -> bool:
        """Return whether there has been a worker."""
        return self.settled_at is not None

    def _is_settled(self) -> bool:
        return self.settled_at is not None and self._clock() >= self.settled_at

    def _is_unused(self, seat: Seat) -> bool:
        """Return whether a seat never had a worker, and had the time for one."""
        return not seat.node and self._is_settled()

    def note_ready(self) -> None:
        """Note that a worker was ready."""
        if self.settled_at is None:
            self.settled_at = self._clock() + SETTLE_SECONDS

    def place(self, seat: Seat, node: str) -> None:
        """Note where a worker is."""
        seat.node = node
        self._nodes = {other.node for other in self._seats if other.node}
        self._all_placed = all(other.node for other in self._seats)

    def are_others_at_work(self, seat: Seat) -> bool:
        """Return whether another worker runs a job."""
        return any(other.queue and other is not seat for other in self._seats)

    def trusted(self, now: float) -> list[Seat]:
        """Return those that take jobs and have not failed since their last success.

        The other workers of their node have not, either, where there are several nodes.
        """
        is_single = self.single_node
        return [
            seat
            for seat in self._seats
            if seat.takes_jobs(now)
            and not seat.on_probation
            and (is_single or not self.nodes[seat.node].failed)
        ]

    def is_witness(self, node: str) -> bool:
        """Return whether a failure on a node is evidence against the job, and not the node.

        It is not while several jobs fail there.
        """
        return self.single_node or len(self.nodes[node].failed) <= 1

    def is_sick(self, node: str) -> bool:
        """Return whether job after job fails on a node, and not on all of them."""
        limit = self._policy.max_failures_in_row
        return not self.single_node and len(self.nodes[node].failed) >= limit

    def set_aside(self, seat: Seat, now: float) -> None:
        """Set a worker aside; if its node is sick, with all idle workers there."""
        if not self.is_sick(seat.node):
            seat.rest(now, seat.failures_in_row)
            return
        seat.rest(now, max(seat.failures_in_row, self.nodes[seat.node].failures))
        for other in self._seats:
            if other.node == seat.node and not other.queue:
                other.rest_until = max(other.rest_until, seat.rest_until)

    def is_probed(self, node: str, now: float) -> bool:
        """Return whether a job is running that shows whether a sick node is well again."""
        record = self.nodes[node]
        return any(
            seat.queue
            and seat.node == node
            and seat.since >= record.failed_at
            and now - seat.since <= 2 * record.failed_after
            for seat in self._seats
        )

    def fit(self) -> list[Seat]:
        """Return those that are there and do not fail job after job, nor does their node."""
        limit = self._policy.max_failures_in_row
        ready = [seat for seat in self._seats if seat.ready and seat.failures_in_row < limit]
        return [seat for seat in ready if not self.is_sick(seat.node)]

    def absence_limit(self) -> float:
        """Return after how many seconds an absent worker is no longer waited for."""
        ready = self._policy.ready_timeout_seconds
        return max(ready, self._policy.wait_for_workers_seconds) if self.any_was_ready else ready

    def absent_too_long(self, seat: Seat, now: float) -> bool:
        """Return whether a seat has been empty for so long that nothing is expected of it."""
        since = seat.absent_since
        if self._is_unused(seat):
            return True
        return since is not None and now - since > self.absence_limit()

    def is_expected(self, seat: Seat, now: float) -> bool:
        """Return whether a worker is absent for now, and did not fail before."""
        is_fit = seat.failures_in_row < self._policy.max_failures_in_row
        return not seat.ready and is_fit and not self.absent_too_long(seat, now)

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
