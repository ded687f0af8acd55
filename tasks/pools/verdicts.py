"""The verdict on a job that failed: is it tried again, or given up?

A failure counts against the job if its own code raised, or if it missed its deadline. A fault of
the environment counts against the worker; it becomes the job's own only if the same worker then
succeeds with another job. The loss of a process counts against the job that was running, because
it may have been the cause. A job is given up only after it failed on two different nodes, where
there are two. Its record is cleared whenever it comes further than in any attempt before, so a
training that advances from checkpoint to checkpoint is never given up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from distill_core.errors import ClusterError, OutOfMemoryError, StorageRefused
from tasks.execution import RetryPolicy
from tasks.pools.failures import Failure
from tasks.pools.faults import FINAL
from tasks.pools.job_queue import JobRecord
from tasks.pools.seats import Seat, Seats

EXHAUSTIVE_NODES = 5  # that failed with a job, after which no further node is tried
NODE_LOSSES = 5  # losses of whole nodes that count as much as one of a process
OUT_OF_MEMORY_HINT = (
    "A second attempt, in a new process and split in two, did not fit either. Recover in smaller "
    "launches (--groups 1), give each worker more of a GPU (--num-gpus), use a larger GPU, or "
    "lower the stage's batch size (posttrain: micro_batch), which changes the result."
)


class Verdicts:
    """Keeps the records of jobs that fail, and decides which of them are given up.

    Methods return None if the job is to be tried again, or the `Failure` with which it is given up.

    Args:
        policy: the limits.
        seats: of the stage.
    """

    def __init__(self, policy: RetryPolicy, seats: Seats) -> None:
        self._policy, self._seats = policy, seats

    def own_fault(self, record: JobRecord, seat: Seat) -> Failure | None:
        """Judge a job whose own code raised, or that missed its deadline."""
        record.own[seat.node] += 1
        return self.of(record)

    def of(self, record: JobRecord) -> Failure | None:
        """Judge a job by the failures that are its own."""
        if not self._is_convicted(record.own, self._enough(record)):
            return None
        assert record.error is not None
        return Failure(record.own.total(), record.error, record.traceback)

    def device_full(self, record: JobRecord, seat: Seat) -> Failure | None:
        """Judge a job that ran out of memory; it is tried in halves before it is given up."""
        was_split = record.job.split > 1
        record.job = replace(record.job, split=2)
        if was_split:
            record.too_small[seat.node] += 1
        if not self._is_convicted(record.too_small, 1):
            return None
        attempts = record.too_small.total() + 1
        hint = OutOfMemoryError(f"{record.error} {OUT_OF_MEMORY_HINT}")
        return Failure(attempts, hint, record.traceback)

    def lost(
        self, record: JobRecord, seat: Seat, reason: str, *, node_lost: bool
    ) -> Failure | None:
        """Judge a job whose worker was lost.

        The losses of a job that is given up no longer count against the workers.
        """
        limit = self._policy.max_losses_per_job
        if node_lost:
            record.node_losses += 1
            if record.node_losses < limit * NODE_LOSSES:
                return None
        else:
            record.losses[seat.node] += 1
            record.killed[seat.number] += 1
            if not self._is_convicted(record.losses, limit):
                return None
        for worker, count in record.killed.items():
            self._seats[worker].losses_in_row = max(0, self._seats[worker].losses_in_row - count)
        losses = record.losses.total() + record.node_losses
        message = f"{record.job.shard}: its worker was lost {losses} times. The last loss: {reason}"
        return Failure(losses, ClusterError(message), "")

    def outage(self, record: JobRecord, now: float, *, only_this: bool) -> Failure | None:
        """Judge a job that met an error that may pass by itself.

        Args:
            record: of the job.
            now: the time.
            only_this: other jobs succeed, so the error may never pass.
        """
        record.outages += 1
        record.outage_since = now if record.outage_since is None else record.outage_since
        if not (only_this and self.waited_out(record, now)):
            return None
        assert record.error is not None
        return Failure(record.outages, record.error, record.traceback)

    def waited_out(self, record: JobRecord, now: float) -> bool:
        """Return whether a job has failed for as long as an outage may last."""
        since = record.outage_since
        return (
            record.outages >= self._policy.max_attempts
            and since is not None
            and now - since >= self._policy.outage_seconds
        )

    def is_exhausted(self, record: JobRecord) -> bool:
        """Return whether enough attempts failed, if its faults of the environment are its own."""
        if record.running is not None or not self.is_tested(record):
            return False
        nodes = record.failed_on
        if len(nodes) < EXHAUSTIVE_NODES and self.has_other_node(nodes):
            return False
        return record.own.total() + record.suspected.total() >= self._enough(record)

    def is_tested(self, record: JobRecord) -> bool:
        """Return whether a job has failed on two nodes, or on the only one."""
        return len(record.failed_on) >= (1 if self._seats.single_node else 2)

    def exhausted(self, record: JobRecord) -> Failure:
        """Return why a job is given up for which there is no worker left to try."""
        assert record.error is not None
        attempts = record.own.total() + record.suspected.total()
        return Failure(attempts, record.error, record.traceback)

    def needs_another_node(self, record: JobRecord) -> bool:
        """Return whether only a failure on another node could show that a job is the cause."""
        return (
            record.own.total() >= self._enough(record)
            or record.too_small.total() > 0
            or record.losses.total() >= self._policy.max_losses_per_job
        )

    def has_other_node(self, nodes: set[str]) -> bool:
        """Return whether a worker that is fit is on none of these nodes."""
        return any(seat.node not in nodes for seat in self._seats.fit())

    def _enough(self, record: JobRecord) -> int:
        is_final = isinstance(record.error, (*FINAL, StorageRefused))
        return 1 if is_final else self._policy.max_attempts

    def _is_convicted(self, failures: Counter[str], enough: int) -> bool:
        total = failures.total()
        if total < enough:
            return False
        if len(failures) > 1 or self._seats.single_node:
            return True
        alone = not self.has_other_node(set(failures))
        return alone and total >= max(enough, self._policy.max_attempts)
