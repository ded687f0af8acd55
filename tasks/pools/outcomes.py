"""The consequences of events: for the job, for its worker, and for the stage."""

from __future__ import annotations

from distill_core.errors import ClusterError
from distill_core.storage.delays import OUTAGE_CAP, REST_CAP, growing_delay
from tasks.jobs import Receipt
from tasks.pools.dispatch_state import DispatchState
from tasks.pools.events import Broken, Done, Event, Lost, Raised, Ready
from tasks.pools.failures import Failure, describe_error
from tasks.pools.faults import Fault, fault_of
from tasks.pools.job_queue import JobRecord
from tasks.pools.seats import Seat


class Outcomes:
    """Applies events to the state of a stage.

    A pool may report several answers of one worker at once, so an event may be about a job that
    was taken away from the worker a moment ago: it counts if the job is done, and not otherwise.
    """

    def __init__(self, state: DispatchState) -> None:
        self._state = state

    def apply(self, event: Event) -> None:
        """Apply one event."""
        seat = self._state.seats[event.worker]
        match event:
            case Ready(_, node):
                self._ready(seat, node)
            case Broken():
                self._broken(seat, event)
            case Done(_, receipt):
                self._done(seat, receipt)
            case Raised():
                self._raised(seat, event)
            case Lost():
                self._lost(seat, event)

    def advanced(self, record: JobRecord) -> None:
        """Note that a running job began from a checkpoint beyond those before, or saved one."""
        self._state.outage.end()
        if record.running is not None:
            self._state.seats[record.running].losses_in_row = 0

    def overdue(self, seat: Seat, limit: float) -> None:
        """Take a job that ran for too long from its worker, which is killed."""
        state, since = self._state, seat.since
        record = state.vacate(seat)
        state.pool.restart(seat.number)
        seat.failures_in_row += 1
        if record is not None:
            error = ClusterError(
                f"{record.job.shard}: ran for more than {limit:g} s and was killed."
            )
            self._note(record, seat, since, error)
            verdict = state.verdicts.own_fault(record, seat)
            self._retry_or_fail(record, verdict, describe_error(error))
            self._rest_if_doubtful(seat)

    def _ready(self, seat: Seat, node: str) -> None:
        state = self._state
        state.seats.note_ready()
        seat.became_ready(node)
        state.seats.place(seat, node)
        if seat.losses_in_row > 1:
            seat.rest(state.clock(), seat.losses_in_row - 1)

    def _done(self, seat: Seat, receipt: Receipt) -> None:
        state, now, since = self._state, self._state.clock(), seat.since
        record = state.remove(seat, receipt.key)
        if record is not None:
            state.last_seconds = now - since
            self._acquit(seat)
            seat.succeeded()
            state.verdicts.excuse(seat.node, state.unfinished, state.receipts)
            for failed in state.verdicts.prove(seat.node, state.unfinished.values()):
                self._judge_again(failed)
            self._believe(seat.node)
        if receipt.key in state.unfinished:
            state.last_done = now
            state.outage.end()
            state.finish(receipt)
        elif (known := state.records.get(receipt.key)) and receipt.key not in state.receipts:
            del state.failed[known.job.shard]  # given up, and done nevertheless
            state.unfinished[receipt.key] = known
            state.finish(receipt)

    def _believe(self, node: str) -> None:
        """Note that a node is well, which makes its earlier failures evidence against jobs."""
        state = self._state
        had_failures = bool(state.seats.nodes[node].failed)
        state.seats.nodes[node].note_success()
        for record in list(state.unfinished.values()) if had_failures else ():
            if record.own[node]:
                self._judge_again(record)

    def _acquit(self, seat: Seat) -> None:
        """Judge the job with which this worker failed before it succeeded with another.

        Where it failed with several jobs, its environment was at fault for a while.
        """
        state = self._state
        for key in seat.refused:
            record = state.unfinished.get(key)
            if record is None or not record.suspected[seat.node]:
                continue
            record.suspected[seat.node] -= 1
            record.suspected += type(record.suspected)()  # drops zeros
            if len(seat.refused) > 1:
                continue
            record.own[seat.node] += 1
            self._judge_again(record)

    def _judge_again(self, record: JobRecord) -> None:
        failure = self._state.verdicts.of(record)
        if failure is not None and record.running is None:
            self._state.give_up(record, failure)

    def _raised(self, seat: Seat, event: Raised) -> None:
        state, since = self._state, seat.since
        record = state.remove(seat, event.key)
        if record is None or event.key not in state.unfinished:
            return
        error, fault = event.error, fault_of(event.error)
        if fault is Fault.LOSS:  # raised by a gang or a decoder that lost a process
            self._count_loss(record, seat, str(error), node_lost=False)
            return
        self._note(record, seat, since, error, event.traceback)
        seat.failures_in_row += 1
        if fault is not Fault.OUTAGE and record.home == seat.number:
            record.home = None  # it held no result, or the attempt would have ended otherwise
        match fault:
            case Fault.OUTAGE:
                self._outage(record, seat, record.failed_at - since)
            case Fault.ENVIRONMENT:
                self._environment(record, seat, record.failed_at - since)
            case Fault.DEVICE:
                self._device_full(record, seat)
            case _:
                verdict = state.verdicts.own_fault(record, seat)
                self._retry_or_fail(record, verdict, describe_error(error))
                if seat.failures_in_row >= state.policy.max_failures_in_row:
                    state.restart(seat)  # its device may be faulty
                self._rest_if_doubtful(seat)

    def _note(
        self, record: JobRecord, seat: Seat, since: float, error: Exception, traceback: str = ""
    ) -> None:
        record.failed(error, traceback, worker=seat.number, now=self._state.clock())
        node = self._state.seats.nodes[seat.node]
        node.note_failure(record.job.key, record.failed_at, record.failed_at - since)

    def _outage(self, record: JobRecord, seat: Seat, seconds: float) -> None:
        """Wait with the job; its worker, which may hold the finished result, waits, too."""
        state, now = self._state, self._state.clock()
        assert record.error is not None
        record.met_outage(now, seat.node, seconds)
        others_succeed = state.others_succeed(record)
        if state.outage.meet(now, seat.node):
            state.notice(f"{describe_error(record.error)} Waiting; the stage goes on when it can.")
        failure = state.verdicts.outage(record, only_this=others_succeed)
        if failure is not None:
            state.give_up(record, failure)
            return
        if others_succeed:  # its own node may be cut off
            state.seats.set_aside(seat, now)
        delay = growing_delay(record.outages.total(), record.job.key, cap=OUTAGE_CAP)
        if record.home is None or seconds > record.outage_after:
            record.home, record.outage_after = seat.number, seconds
        seat.rest_until = max(seat.rest_until, now + delay)
        state.put_back(record, describe_error(record.error), not_before=now + delay)

    def _environment(self, record: JobRecord, seat: Seat, seconds: float) -> None:
        """Count against the worker; the job is uncounted until the worker succeeds with another."""
        state, now = self._state, self._state.clock()
        error = record.error
        assert error is not None
        tries = state.verdicts.suspect(record, seat)
        seat.refusal, seat.traceback = error, record.traceback
        seat.refused.add(record.job.key)
        seat.refused_after = max(seat.refused_after, seconds)
        delay = growing_delay(tries, record.job.key, cap=REST_CAP) if tries > 1 else 0.0
        state.put_back(record, describe_error(error), not_before=now + delay)
        self._set_aside(seat, error)
        if all(other.home != seat.number for other in state.unfinished.values()):
            state.restart(seat)  # otherwise it may hold a finished result

    def _set_aside(self, seat: Seat, error: Exception) -> None:
        self._state.seats.set_aside(seat, self._state.clock())
        if seat.failures_in_row == 1:
            self._state.notice(
                f"worker {seat.number} on node {seat.node} is set aside for a while: "
                f"{describe_error(error)}"
            )

    def _device_full(self, record: JobRecord, seat: Seat) -> None:
        state = self._state
        assert record.error is not None
        failure = state.verdicts.device_full(record, seat)
        self._retry_or_fail(record, failure, describe_error(record.error))
        state.restart(seat)  # the memory of its process is fragmented
        self._rest_if_doubtful(seat)

    def _rest_if_doubtful(self, seat: Seat) -> None:
        """Set aside a worker that fails job after job, if others do not."""
        state, now = self._state, self._state.clock()
        excess = seat.failures_in_row - state.policy.max_failures_in_row
        if excess >= 0 and any(other is not seat for other in state.seats.trusted(now)):
            state.seats.set_aside(seat, now)

    def _broken(self, seat: Seat, event: Broken) -> None:
        """Set aside a worker that cannot be built, and build it again later."""
        state = self._state
        state.vacate(seat)
        state.seats.place(seat, event.node)
        state.seats.nodes[event.node].note_failure(f"worker {seat.number}", state.clock(), 0.0)
        seat.failures_in_row += 1
        if fault_of(event.error) in (Fault.OUTAGE, Fault.LOSS):
            now = state.clock()
            state.outage.meet(now, event.node)
            delay = growing_delay(seat.failures_in_row, f"{seat.number}", cap=OUTAGE_CAP)
            seat.rebuild_at, seat.outage = now + delay, event.error
            return
        seat.refusal, seat.traceback = event.error, event.traceback
        self._set_aside(seat, event.error)
        seat.rebuild_at = seat.rest_until

    def _lost(self, seat: Seat, event: Lost) -> None:
        record = self._state.vacate(seat)
        self._count_loss(record, seat, event.reason, node_lost=event.node_lost)

    def _count_loss(
        self, record: JobRecord | None, seat: Seat, reason: str, *, node_lost: bool
    ) -> None:
        """Count the loss of a worker; its running job, if any, is the next one to run."""
        state = self._state
        state.losses += 1
        seat.loss = reason
        if not node_lost:
            seat.losses_in_row += 1
        if record is not None:
            failure = state.verdicts.lost(record, seat, reason, node_lost=node_lost)
            self._retry_or_fail(record, failure, reason, first=True)

    def _retry_or_fail(
        self, record: JobRecord, failure: Failure | None, reason: str, *, first: bool = False
    ) -> None:
        if failure is not None:
            self._state.give_up(record, failure)
        else:
            self._state.put_back(record, reason, first=first)
