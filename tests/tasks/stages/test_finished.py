"""The bytes of a finished shard outlive an outage of the store and are never computed again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_core.errors import StorageError, StorageRefused
from distill_core.storage.markers import ShardFacts
from distill_core.storage.patience import Patience
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job, Receipt
from tasks.stages.finished import ALONE_SECONDS, KEPT, FinishedShard, FinishedShards, WaitLimits
from tasks.stages.worker import WorkerContext
from tests.support.fabricate import finished_run

KEYS = [f"{digit:x}" * 32 for digit in range(1, 6)]
FILES = {"parquet": b"rows", "trace.json": b"{}"}
ONCE = Patience(0)


class Outage:
    """Lets some writes of every store fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: type[StorageError] | None = None
        self.wanted: Callable[[str], bool] = lambda path: True
        self.lost_replies = False  # the writes that fail are carried out
        for name in ("put", "create"):
            monkeypatch.setattr(Store, name, self._failing(getattr(Store, name)))

    def _failing(self, write: Any) -> Any:
        def attempt(store: Store, path: str, data: bytes) -> Any:
            fails = self.error is not None and self.wanted(path)
            if not fails or self.lost_replies:
                answer = write(store, path, data)
            if fails:
                assert self.error is not None
                raise self.error(f"{path}: cannot be written.")
            return answer

        return attempt


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


@pytest.fixture
def shard_store(tmp_path: Path) -> ShardStore:
    return ShardStore(Store(str(tmp_path)), "recover")


def shard(key: str) -> FinishedShard:
    return FinishedShard(key, "s", FILES, ShardFacts(rows=1, classes=1, seconds=1, device="cpu"))


def holding(shard_store: ShardStore, outage: Outage) -> FinishedShards:
    """Return what holds the bytes of a shard, which an outage kept from the store."""
    finished, outage.error = FinishedShards(shard_store, lambda text: None), StorageError
    with pytest.raises(StorageError):
        finished.commit(shard(KEYS[0]), ONCE)
    outage.error = None
    return finished


def test_a_commit_is_repeated_until_the_store_is_back(
    shard_store: ShardStore, outage: Outage
) -> None:
    outage.error, slept = StorageError, list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 5:
            outage.error = None

    receipt = FinishedShards(shard_store, lambda text: None).commit(
        shard(KEYS[0]), Patience(1800, clock=lambda: sum(slept), sleep=sleep)
    )
    assert (receipt.key, receipt.won, len(slept)) == (KEYS[0], True, 5)
    marker = shard_store.marker(KEYS[0])
    assert marker is not None
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES


@pytest.mark.parametrize("error", [StorageError, StorageRefused])
def test_bytes_that_could_not_be_committed_are_committed_when_their_job_returns(
    shard_store: ShardStore, outage: Outage, error: type[StorageError]
) -> None:
    finished, outage.error = FinishedShards(shard_store, lambda text: None), error
    with pytest.raises(error):
        finished.commit(shard(KEYS[0]), ONCE)
    outage.error = None
    receipt = finished.committed(KEYS[0])
    assert receipt is not None
    assert receipt.won
    assert KEYS[0] in shard_store.done()


def test_kept_bytes_are_committed_before_another_job(
    shard_store: ShardStore, outage: Outage
) -> None:
    finished = holding(shard_store, outage)
    assert finished.committed(KEYS[1]) is None
    assert shard_store.done() == {KEYS[0]}


def test_a_worker_keeps_the_bytes_of_its_last_shards_only(
    shard_store: ShardStore, outage: Outage
) -> None:
    finished, outage.error = FinishedShards(shard_store, lambda text: None), StorageError
    for key in KEYS:
        with pytest.raises(StorageError):
            finished.commit(shard(key), ONCE)
    outage.error = None
    assert finished.committed("0" * 32) is None
    assert shard_store.done() == set(KEYS[-KEPT:])


def test_kept_bytes_are_dropped_when_another_worker_has_committed_the_shard(
    shard_store: ShardStore, outage: Outage
) -> None:
    finished = holding(shard_store, outage)
    FinishedShards(shard_store, lambda text: None).commit(shard(KEYS[0]), ONCE)
    receipt = finished.committed(KEYS[0])
    assert receipt is not None
    assert not receipt.won
    assert len(shard_store.store.names("recover/data")) == len(FILES)


def test_a_commit_whose_reply_was_lost_is_not_undone_by_the_next_attempt(
    shard_store: ShardStore, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage.error, outage.lost_replies = StorageError, True
    outage.wanted = lambda path: "_done" in path
    read = ShardStore.marker

    def away(store: ShardStore, key: str) -> Any:
        raise StorageError("away.")

    monkeypatch.setattr(ShardStore, "marker", away)
    finished = FinishedShards(shard_store, lambda text: None)
    with pytest.raises(StorageError):
        finished.commit(shard(KEYS[0]), ONCE)
    monkeypatch.setattr(ShardStore, "marker", read)
    outage.error = None
    receipt = finished.committed(KEYS[0])
    assert receipt is not None
    assert receipt.won
    marker = shard_store.marker(KEYS[0])
    assert marker is not None
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES


@pytest.mark.parametrize(
    ("limits", "elapsed", "gang", "seconds"),
    [
        (WaitLimits(), 50_000, True, 1800),
        (WaitLimits(), 50_000, False, ALONE_SECONDS),
        (WaitLimits(outage_seconds=60), 50_000, False, 60),
        (WaitLimits(1800, job_timeout_seconds=100_000), 50_000, True, 1800),
        (WaitLimits(1800, job_timeout_seconds=1000), 600, False, 200),
        (WaitLimits(1800, job_timeout_seconds=1000), 500, True, 300),
        (WaitLimits(1800, job_timeout_seconds=1000), 900, True, 0),
    ],
)
def test_a_worker_does_not_wait_until_its_job_is_killed(
    limits: WaitLimits, elapsed: float, gang: bool, seconds: float
) -> None:
    assert limits.patience(elapsed, gang=gang).seconds == seconds


class Slow:
    """A worker that counts how often it computes."""

    def __init__(self, **context: Any) -> None:
        self.context, self.computed = WorkerContext("recover", **context), 0

    def run(self, job: Job[None]) -> Receipt:
        if done := self.context.begin(job):
            return done
        self.computed += 1
        return self.context.commit(job, FILES, since=time.perf_counter(), rows=1, classes=1)


def test_a_job_that_returns_to_its_worker_is_not_computed_again(
    tmp_path: Path, outage: Outage
) -> None:
    run = finished_run(tmp_path)
    where = {"run": run.config.model_dump_json(), "name": run.name, "store": run.store.url}
    worker = Slow(**where, device="cpu", planned={"outage_seconds": 0.0})
    outage.error = StorageError
    with pytest.raises(StorageError):
        worker.run(Job(KEYS[0], "s", None))
    outage.error = None
    receipt = worker.run(Job(KEYS[0], "s", None))
    assert (receipt.won, worker.computed) == (True, 1)
