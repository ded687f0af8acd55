"""Workers that do nothing but sleep, or commit an empty shard: what is left is orchestration."""

from __future__ import annotations

import time

from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job, Receipt


class SleepingWorker:
    """Sleeps as long as each job says."""

    def run(self, job: Job) -> Receipt:
        since = time.perf_counter()
        time.sleep(job.payload["seconds"])
        return Receipt(job.key, job.shard, seconds=time.perf_counter() - since)


class EmptyWorker:
    """Commits a shard of a few bytes."""

    def __init__(self, *, store: str, stage: str) -> None:
        self.shard_store = ShardStore(Store(store), stage)

    def run(self, job: Job) -> Receipt:
        marker = commit_empty(self.shard_store, job.key, job.shard)
        return Receipt(job.key, job.shard, seconds=marker.seconds, rows=1)


def commit_empty(shard_store: ShardStore, key: str, shard: str) -> Marker:
    """Commit a shard whose file and marker are as small as they come."""
    facts = ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu")
    return shard_store.commit(key, shard=shard, files={"parquet": b"empty"}, facts=facts)
