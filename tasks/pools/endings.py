"""The conditions under which a stage ends although jobs are left."""

from __future__ import annotations

from collections import Counter
from typing import NoReturn

from distill_core.errors import ClusterError, DistillError
from tasks.pools.dispatch_state import DispatchState
from tasks.pools.failures import RemoteTraceback, describe_error
from tasks.pools.faults import Fault, fault_of
from tasks.pools.seats import Seat

NAMED = 3  # nodes in a message
PROOF = 10  # new jobs that meet faults of the environment, where jobs were done before


class Endings:
    """Ends a stage when no worker can be expected to go on with it."""

    def __init__(self, state: DispatchState) -> None:
        self._state = state

    def check(self, now: float) -> None:
        """End the stage if it cannot go on.

        Raises:
            DistillError: every worker refuses; or only errors that may pass came for too long.
            ClusterError: there is no worker, or every worker is lost again and again.
        """
        self._give_up_exhausted()
        state = self._state
        if not state.unfinished:
            return
        if state.seats.are_hopeless(now):
            self._end_without_workers(now)
        has_lasted = state.outage.seconds >= state.policy.outage_seconds
        if has_lasted and self._idle(now) and state.verdicts.is_tried_out(self._outage_nodes()):
            self._end_outage(state.outage.seconds)

    def _outage_nodes(self) -> set[str]:
        """Return the nodes that met the outage with one of the jobs that are left."""
        records = self._state.unfinished.values()
        return self._state.outage.nodes.union(*(record.outages for record in records))

    def _give_up_exhausted(self) -> None:
        """Give up the jobs that are left if each failed enough, and none is left to compare."""
        state = self._state
        verdicts, left = state.verdicts, list(state.unfinished.values())
        if all(r.error is not None and verdicts.is_exhausted(r) for r in left):
            for record in left:
                state.give_up(record, verdicts.exhausted(record))

    def _end_without_workers(self, now: float) -> None:
        state = self._state
        refusing = [seat for seat in state.seats if state.seats.refuses(seat, now)]
        if refusing:
            left = state.unfinished.values()
            if self._has_changed() and not all(map(state.verdicts.is_tested, left)):
                self._refuse(refusing)
            return
        again = [seat for seat in state.seats if state.seats.lost_too_often(seat)]
        if again:
            self._end_losses(again)
        limit, pool = state.seats.absence_limit(), state.pool.describe()
        if state.seats.any_was_ready:
            raise ClusterError(
                f"{state.stage}: there was no worker for {limit:g} s ({pool}). Finished shards are "
                "kept. Check the cluster, then run `distill resume`."
            )
        raise ClusterError(
            f"{state.stage}: a worker was not ready within {limit:g} s ({pool}). Free or add "
            "resources, then run `distill resume`."
        )

    def _has_changed(self) -> bool:
        """Return whether the environments are at fault where the jobs could be, too.

        Where jobs were done, each worker may have met two bad ones since. So many new jobs must
        have failed since the last success that few can be bad by chance.
        """
        done = self._state.last_done
        first = (record.failed_since for record in self._state.unfinished.values())
        return done is None or sum(time is not None and time > done for time in first) >= PROOF

    def _refuse(self, seats: list[Seat]) -> NoReturn:
        """Raise the most frequent error of the workers; one of another library as a `ClusterError`.

        It is the fault of their machines, such as a full disk or a missing package, and no bug.
        """
        kinds = Counter(type(seat.refusal) for seat in seats)
        common = kinds.most_common(1)[0][0]
        seat = next(seat for seat in seats if type(seat.refusal) is common)
        error = seat.refusal
        assert error is not None
        if isinstance(error, DistillError):
            text = f"{self._state.stage}: no worker can go on ({_nodes(seats)}). {error}"
            raise type(error)(text) from RemoteTraceback(seat.traceback)
        if fault_of(error) is not Fault.ENVIRONMENT:
            raise error from RemoteTraceback(seat.traceback)
        raise ClusterError(
            f"{self._state.stage}: no worker can go on ({_nodes(seats)}): {describe_error(error)}. "
            "Finished shards are kept. Repair the machines, then run `distill resume`."
        ) from RemoteTraceback(seat.traceback)

    def _end_losses(self, seats: list[Seat]) -> NoReturn:
        limit = self._state.policy.losses_per_worker
        raise ClusterError(
            f"{self._state.stage}: every worker was lost more than {limit} times in a row without "
            f"a finished shard ({_nodes(seats)}). The last loss: {seats[-1].loss} "
            "Finished shards are kept. Check the cluster, then run `distill resume`."
        )

    def _idle(self, now: float) -> bool:
        """Return whether no worker runs a job that may still succeed.

        One that met the outage again and again on this node may, once it runs for longer.
        """
        limit = self._state.policy.max_attempts
        for seat in self._state.seats:
            if seat.queue:
                record, seconds = seat.queue[0], now - seat.since
                if record.outages[seat.node] < limit or seconds > 2 * record.outage_last:
                    return False
        return True

    def _end_outage(self, seconds: float) -> None:
        state = self._state
        last = (record.error for record in state.unfinished.values() if record.outages)
        errors = [error for error in last if error and fault_of(error) is Fault.OUTAGE]
        errors += [seat.outage for seat in state.seats if seat.outage is not None]
        if not errors:
            return
        error = errors[-1]
        assert isinstance(error, DistillError)
        raise type(error)(
            f"{state.stage}: nothing succeeded for {seconds:.0f} s. The last error: {error} "
            "Finished shards are kept."
        )


def _nodes(seats: list[Seat]) -> str:
    """Return the names of the nodes of some workers, for messages."""
    names = sorted({seat.node for seat in seats if seat.node}) or ["no node"]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"on {', '.join(names[:NAMED])}{more}"
