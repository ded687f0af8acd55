"""The shards of other living drivers, and a training that is left to one of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.errors import StorageError
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.jobs import Job
from tasks.pools.provider import PoolProvider
from tasks.run import Run
from tasks.runs import run_stage as stages
from tasks.runs.drivers import STALE_SECONDS, driver_path
from tasks.runs.heartbeat import Heartbeat
from tasks.runs.peers import Peers
from tasks.runs.run_stage import run_stage
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tests.support.fabricate import finished_run
from tests.support.notes import Notes
from tests.support.workers import Committing, committing

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SQUEEZE = StageId("squeeze")


class Clocks:
    """A clock that says the time of day and one that measures, both moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def utc(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished_run(tmp_path)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def driver(run: Run, clock: Callable[[], datetime], *shards: str, stage: str) -> Heartbeat:
    """Return another driver that has written its record."""
    heart = Heartbeat(run, Execution(store=run.store.url), clock=clock)
    heart.stage_started(stage, len(shards), 0)
    for shard in shards:
        heart.job_started(stage, shard)
    heart.write()
    return heart


def peers(run: Run, clocks: Clocks, own: str | None = None) -> Peers:
    return Peers(run, SQUEEZE, own, clock=clocks.utc, monotonic=clocks.monotonic)


def test_the_shards_of_other_living_drivers_are_known(run: Run, clocks: Clocks) -> None:
    other = driver(run, clocks.utc, "teacher", stage="squeeze")
    own = driver(run, clocks.utc, "another", stage="squeeze")
    driver(run, clocks.utc, "images", stage="recover")
    known = peers(run, clocks, own.id)
    known.read()
    holder = known.holder("teacher")
    assert holder is not None
    assert holder.id == other.id
    assert [known.holder(shard) for shard in ("another", "images")] == [None, None]


def test_the_shards_of_a_driver_that_stopped_writing_are_free(run: Run, clocks: Clocks) -> None:
    other = driver(run, clocks.utc, "teacher", stage="squeeze")
    known = peers(run, clocks)
    known.read()
    for _ in range(2):
        clocks.seconds += STALE_SECONDS - 1
        other.write()
        known.read()
        assert known.holder("teacher")
    clocks.seconds += STALE_SECONDS
    known.read()
    assert known.holder("teacher") is None


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_wrong_clock_of_another_machine_does_not_matter(
    run: Run, clocks: Clocks, hours: int
) -> None:
    other = driver(run, lambda: clocks.utc() + timedelta(hours=hours), "teacher", stage="squeeze")
    known = peers(run, clocks)
    known.read()
    clocks.seconds += 10
    other.write()
    known.read()
    assert known.holder("teacher")  # it has written meanwhile, whatever time it says
    clocks.seconds += STALE_SECONDS
    known.read()
    assert known.holder("teacher") is None


def test_the_shards_of_a_driver_whose_process_is_gone_are_free_at_once(
    run: Run, clocks: Clocks
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    record = driver(run, clocks.utc, "teacher", stage="squeeze").record()
    known = peers(run, clocks)
    for changes, is_free in (
        ({"pid": process.pid}, True),
        ({"pid": process.pid, "processes": "of another machine"}, False),
        ({"pid": process.pid, "processes": ""}, False),  # of an older version
    ):
        one = replace(record, id=f"other-{len(changes)}-{is_free}", **changes)
        run.store.delete(driver_path(run, record.id))
        run.store.put(driver_path(run, one.id), one.to_json())
        known.read()
        assert (known.holder("teacher") is None) == is_free, changes
        run.store.delete(driver_path(run, one.id))


def test_records_that_no_longer_change_are_read_once(
    run: Run, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = driver(run, lambda: clocks.utc() - timedelta(days=2), "teacher", stage="squeeze")
    living = driver(run, clocks.utc, "teacher", stage="squeeze")
    with Heartbeat(run, Execution(store=run.store.url), clock=clocks.utc) as ended:
        pass
    known, read, names = peers(run, clocks), Store.read, list[str]()

    def noting(self: Store, path: str) -> bytes:
        names.append(path)
        return read(self, path)

    monkeypatch.setattr(Store, "read", noting)
    known.read()
    assert set(names) == {driver_path(run, each.id) for each in (old, living, ended)}
    names.clear()
    known.read()
    assert names == [driver_path(run, living.id)]


def test_while_the_store_is_away_the_last_records_count(
    run: Run, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(run, clocks.utc, "teacher", stage="squeeze")
    known = peers(run, clocks)
    known.read()

    def away(self: Store, folder: str) -> tuple[str, ...]:
        raise StorageError("away.")

    monkeypatch.setattr(Store, "names", away)
    known.read()
    assert known.holder("teacher")


def test_of_two_drivers_that_run_a_shard_both_know_the_same_first_one(
    run: Run, clocks: Clocks
) -> None:
    first = driver(run, clocks.utc, "teacher", stage="squeeze")
    clocks.seconds += 2
    second = driver(run, clocks.utc, "teacher", "student", stage="squeeze")
    known = [peers(run, clocks, each.id) for each in (first, second)]
    for each in known:
        each.read()
    assert [each.precedes("teacher") for each in known] == [False, True]
    assert [each.precedes("student") for each in known] == [False, False]


def test_two_drivers_that_begin_at_once_agree(run: Run, clocks: Clocks) -> None:
    both = [driver(run, clocks.utc, "teacher", stage="squeeze") for _ in range(2)]
    known = [peers(run, clocks, each.id) for each in both]
    for each in known:
        each.read()
    assert sorted(each.precedes("teacher") for each in known) == [False, True]


@pytest.fixture
def untrained(run: Run) -> Run:
    """Return the run without its teacher."""
    job = teacher_of(run)
    run.store.delete(ShardStore(run.store, "squeeze").marker_path(job.key))
    run.store.delete(run.path("squeeze.manifest.json"))
    return run


def teacher_of(run: Run) -> Job:
    (job,) = JobPlan(run).jobs(SQUEEZE)[SQUEEZE]
    return job


@pytest.fixture
def worker() -> Iterator[type[Committing]]:
    """Run teachers with a worker that only commits."""
    with committing("squeeze") as worker:
        yield worker


def drive(run: Run, driver: str | None = None) -> Notes:
    """Run the squeeze stage."""
    execution, notes = Execution(store=run.store.url, local=True), Notes()
    with PoolProvider(execution) as pools:
        run_stage(run, SQUEEZE, execution=execution, observer=notes, pools=pools, driver=driver)
    return notes


def while_waiting(monkeypatch: pytest.MonkeyPatch, *actions: Callable[[], object]) -> list[float]:
    """Do something each time the driver sleeps; return how long it slept."""
    slept, todo = list[float](), list(actions)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        todo.pop(0)()

    monkeypatch.setattr(stages.time, "sleep", sleep)
    return slept


def test_a_training_of_a_living_driver_is_left_to_it(
    untrained: Run, worker: type[Committing], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = teacher_of(untrained)
    other = driver(untrained, stages_now, job.shard, stage="squeeze")

    def finish() -> None:
        facts = ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu")
        files = {"safetensors": b"weights", "json": b"{}"}
        store = ShardStore(untrained.store, "squeeze")
        store.commit(job.key, shard=job.shard, files=files, facts=facts)

    slept = while_waiting(monkeypatch, other.write, other.write, finish)
    notes = drive(untrained)
    assert (len(slept), worker.ran, notes.started) == (3, [], [])
    ((_, notice),) = notes.notices
    assert f"waiting for driver {other.id}" in notice
    assert untrained.store.exists(untrained.path("squeeze.manifest.json"))


def test_a_training_whose_driver_ends_is_taken_over(
    untrained: Run, worker: type[Committing], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = teacher_of(untrained)
    other = driver(untrained, stages_now, job.shard, stage="squeeze")
    slept = while_waiting(
        monkeypatch,
        other.write,
        lambda: untrained.store.delete(driver_path(untrained, other.id)),
    )
    drive(untrained)
    assert (len(slept), worker.ran) == (2, [job.shard])


def test_a_driver_does_not_wait_for_itself(
    untrained: Run, worker: type[Committing], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = teacher_of(untrained)
    own = driver(untrained, stages_now, job.shard, stage="squeeze")
    slept = while_waiting(monkeypatch)
    drive(untrained, own.id)
    assert (slept, worker.ran) == ([], [job.shard])


def stages_now() -> datetime:
    """Return the time that a living driver writes."""
    return datetime.fromtimestamp(time.time(), UTC)
