"""The verdict on a job that failed: is it tried again, or given up?

A failure counts against the job if its own code raised, or if it missed its deadline. A fault of
the environment counts against the worker; it becomes the job's own only if the same worker then
succeeds with another job. The loss of a process counts against the job that was running, because
it may have been the cause. A job is given up only after it failed on two different nodes, where
there are two. Its record is cleared whenever its checkpoint has advanced, so a training that
advances from checkpoint to checkpoint is never given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace

from distill_core.errors import ClusterError, OutOfMemoryError, StorageRefused
from tasks.execution import RetryPolicy
from tasks.pools.failures import Failure
from tasks.pools.faults import FINAL
from tasks.pools.job_queue import JobRecord
from tasks.pools.seats import Seat, Seats

EXHAUSTIVE_NODES = 5  # that failed with a job, after which no further node is tried
GUILT = 2  # jobs that failed on a node and were done elsewhere, which shows that it was sick
CEILING = 10  # times the failures that are enough
NODE_LOSSES = 5  # losses of whole nodes that count as much as one of a process
SECOND_ATTEMPT = "A second attempt, in a new process and in smaller parts, did not fit either."


class Verdicts:
    """Keeps the records of jobs that fail, and decides which of them are given up.

    Methods return None if the job is to be tried again, or the `Failure` with which it is given up.

    Args:
        policy: the limits.
        seats: of the stage.
        clock: returns the time.
    """

    def __init__(self, policy: RetryPolicy, seats: Seats, clock: Callable[[], float]) -> None:
        self._policy, self._seats, self._clock = policy, seats, clock

    def own_fault(self, record: JobRecord, seat: Seat) -> Failure | None:
        """Judge a job whose own code raised, or that missed its deadline.

        On a node on which no job was done yet, the node may be the cause.
        """
        record.tries[seat.node] += 1
        is_proven = self._seats.nodes[seat.node].proven or self._seats.single_node
        (record.own if is_proven else record.unproven)[seat.node] += 1
        return self.of(record)

    def suspect(self, record: JobRecord, seat: Seat) -> int:
        """Note a fault of the environment; return how many the job has met."""
        record.tries[seat.node] += 1
        record.suspected[seat.node] += 1
        return record.suspected.total()

    def excuse(self, node: str, unfinished: Mapping[str, JobRecord], done: Container[str]) -> None:
        """Drop the failures on a node that is well again, if it was the cause of them.

        It was if several jobs that failed there one after another were done elsewhere.

        Args:
            node: on which a job is done now.
            unfinished: the records of jobs, by key.
            done: keys of jobs.
        """
        failed = self._seats.nodes[node].failed
        if sum(key in done for key in failed) < GUILT:
            return
        for record in (unfinished[key] for key in failed if key in unfinished):
            record.own.pop(node, None)
            record.unproven.pop(node, None)

    def prove(self, node: str, records: Iterable[JobRecord]) -> list[JobRecord]:
        """Note that a node is well; return the jobs that failed there before."""
        if self._seats.nodes[node].proven:
            return []
        failed = [record for record in records if node in record.unproven]
        for record in failed:
            record.own[node] += record.unproven.pop(node)
        return failed

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
        if not self._is_convicted(record.too_small, 1, in_doubt=True):
            return None
        attempts = record.too_small.total() + 1
        hint = OutOfMemoryError(f"{record.error} {SECOND_ATTEMPT}")
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
            if not self._is_convicted(record.losses, limit, in_doubt=True):
                return None
        for worker, count in record.killed.items():
            self._seats[worker].losses_in_row = max(0, self._seats[worker].losses_in_row - count)
        losses = record.losses.total() + record.node_losses
        message = f"{record.job.shard}: its worker was lost {losses} times. The last loss: {reason}"
        return Failure(losses, ClusterError(message), "")

    def outage(self, record: JobRecord, *, only_this: bool) -> Failure | None:
        """Judge a job that met an error that may pass by itself.

        Args:
            record: of the job.
            only_this: other jobs succeed, so the error may never pass.
        """
        if not only_this or record.outage.seconds < self._policy.outage_seconds:
            return None
        if not self._is_convicted(record.outages, self._policy.max_attempts):
            return None
        if not self.is_tried_out(record.tried_on):
            return None
        assert record.error is not None
        return Failure(record.outages.total(), record.error, record.traceback)

    def is_exhausted(self, record: JobRecord) -> bool:
        """Return whether enough attempts failed, if all its failures are its own.

        The number of attempts is bounded, whatever is forgiven: each that fails counts in `tries`
        until the job advances. A job that reached the ceiling runs only on nodes that are new to
        it, at most `EXHAUSTIVE_NODES`, and is then exhausted. The stage gives up such jobs when
        nothing else is left. Losses have a ceiling, too (`_is_convicted`), and outages a time.
        """
        if record.running is not None:
            return False
        enough = self.has_failed_enough(record) or self._is_at_ceiling(record)
        return enough and self.is_tried_out(record.tried_on)

    def _is_at_ceiling(self, record: JobRecord) -> bool:
        return record.tries.total() >= CEILING * self._policy.max_attempts

    def is_tried_out(self, nodes: set[str]) -> bool:
        """Return whether no node is left that is worth a try."""
        return len(nodes) >= EXHAUSTIVE_NODES or not self.has_other_node(nodes)

    def has_failed_enough(self, record: JobRecord) -> bool:
        """Return whether a job would be given up if all its failures were its own."""
        return self.is_tested(record) and record.failures >= self._enough(record)

    def is_tested(self, record: JobRecord) -> bool:
        """Return whether a job has failed on two nodes, or on the only one."""
        return len(record.failed_on) >= (1 if self._seats.single_node else 2)

    def exhausted(self, record: JobRecord) -> Failure:
        """Return why a job is given up for which there is no worker left to try."""
        assert record.error is not None
        return Failure(record.failures, record.error, record.traceback)

    def needs_witness(self, record: JobRecord, seat: Seat) -> bool:
        """Return whether a job failed so often that only a node that is proven can tell more."""
        nodes = record.failed_on
        is_new = seat.node not in nodes and len(nodes) < EXHAUSTIVE_NODES
        return not is_new and self.has_failed_enough(record)

    def needs_another_node(self, record: JobRecord) -> bool:
        """Return whether only a failure on another node could show that a job is the cause."""
        return (
            record.own.total() >= self._enough(record)
            or record.too_small.total() > 0
            or record.losses.total() >= self._policy.max_losses_per_job
            or record.outages.total() >= self._policy.max_attempts
            or self.has_failed_enough(record)
            or self._is_at_ceiling(record)
        )

    def other_nodes(self, nodes: set[str]) -> set[str]:
        """Return where a job may be tried that failed on some nodes.

        These are the nodes of workers that are fit, or still expected, and those on which a job was
        done: where bad jobs fail, one after another, they look sick for a while.
        """
        seats, now = self._seats, self._clock()
        there = {seat.node for seat in seats if not seats.absent_too_long(seat, now)}
        proven = {node for node in there if seats.nodes[node].proven}
        expected = {seat.node for seat in seats if seats.is_expected(seat, now)}
        return ({seat.node for seat in seats.fit()} | expected | proven) - nodes

    def has_other_node(self, nodes: set[str]) -> bool:
        """Return whether a job may be tried on another node than these."""
        return bool(self.other_nodes(nodes))

    def _enough(self, record: JobRecord) -> int:
        is_final = isinstance(record.error, (*FINAL, StorageRefused))
        return 1 if is_final else self._policy.max_attempts

    def _is_convicted(self, failures: Counter[str], enough: int, *, in_doubt: bool = False) -> bool:
        """Return whether failures are the job's own; `in_doubt`: also where other jobs fail."""
        total = failures.total()
        if total < enough:
            return False
        if self._seats.single_node:
            return True
        evidence = {n: k for n, k in failures.items() if in_doubt or self._seats.is_witness(n)}
        if len(evidence) > 1 and sum(evidence.values()) >= enough:
            return True
        if total >= CEILING * enough:  # whatever the nodes, it has to end
            return True
        alone = not self.has_other_node(set(failures))
        return alone and total >= max(enough, self._policy.max_attempts)
