"""Finished shards of a worker, whose bytes are kept until the store has taken them.

While the store is away, a worker waits and commits again: another worker would compute the shard
anew. If it has to give the job back, it keeps the bytes of its last shards and commits them before
its next job.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from distill_core.errors import StorageError
from distill_core.progress import Notice
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.patience import OUTAGE_SECONDS, Patience
from distill_core.storage.shard_store import ShardStore, new_token
from tasks.jobs import Receipt

KEPT = 2  # shards; a worker has as many jobs at a time
# After that, the job goes back to the dispatcher, which gives it to this worker again: the driver
# reports that it waits. A gang waits to the end of the outage, because its processes end with it.
ALONE_SECONDS = 300.0
BEFORE_DEADLINE = 0.8  # share of the time for a job; what remains is for the last attempt


@dataclass(frozen=True)
class WaitLimits:
    """How long a worker waits for a store that is away."""

    outage_seconds: float = OUTAGE_SECONDS
    job_timeout_seconds: float | None = None  # the dispatcher then kills the worker

    def patience(self, elapsed: float, *, gang: bool = False) -> Patience:
        """Return the patience at the end of a job.

        Args:
            elapsed: seconds that it has taken so far.
            gang: whether several processes share it.
        """
        seconds = self.outage_seconds if gang else min(self.outage_seconds, ALONE_SECONDS)
        if self.job_timeout_seconds is not None:
            seconds = min(seconds, BEFORE_DEADLINE * self.job_timeout_seconds - elapsed)
        return Patience(max(0.0, seconds))


@dataclass(frozen=True)
class FinishedShard:
    """The bytes of a shard that is to be committed."""

    key: str
    shard: str
    files: Mapping[str, bytes]  # by suffix
    facts: ShardFacts
    # Of the attempts to commit it. A lost reply may belong to a commit that was carried out, so no
    # name is used twice: another attempt would delete what the marker lists.
    tokens: set[str] = field(default_factory=set)


class FinishedShards:
    """The shards that a worker has finished and not committed yet."""

    def __init__(self, shard_store: ShardStore, notice: Notice) -> None:
        self._shard_store, self._notice = shard_store, notice
        self._kept: dict[str, FinishedShard] = {}  # by key, oldest first

    def commit(self, finished: FinishedShard, patience: Patience) -> Receipt:
        """Commit a shard and return who won; its bytes are kept if that fails.

        Raises:
            StorageError: the store refuses, or was away for longer than the patience lasts.
        """
        self._kept.pop(finished.key, None)
        self._kept[finished.key] = finished
        while len(self._kept) > KEPT:
            self._kept.pop(next(iter(self._kept)))
        return patience.repeat(lambda: self._publish(finished), self._notice)

    def committed(self, key: str) -> Receipt | None:
        """Commit the shards that are kept; return the receipt of one that is in the store.

        Raises:
            StorageError: the store does not answer.
        """
        receipts: dict[str, Receipt] = {}
        for finished in list(self._kept.values()):
            with suppress(StorageError):  # the next call tries again
                receipts[finished.key] = self._publish(finished)
        if key in receipts:
            return receipts[key]
        marker = self._shard_store.marker(key)
        return None if marker is None else receipt(marker, won=False)

    def _publish(self, finished: FinishedShard) -> Receipt:
        token = new_token()
        finished.tokens.add(token)
        marker = self._shard_store.commit(
            finished.key,
            shard=finished.shard,
            files=finished.files,
            facts=finished.facts,
            token=token,
        )
        self._kept.pop(finished.key, None)
        return receipt(marker, won=marker.token in finished.tokens)


def receipt(marker: Marker, *, won: bool) -> Receipt:
    """Return what the driver needs to know of a committed shard."""
    return Receipt(
        marker.key,
        marker.shard,
        seconds=marker.seconds,
        won=won,
        rows=marker.rows,
        summary=marker.summary,
    )
