"""The records and heartbeats of drivers, which never stop the work."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.errors import StorageError
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.local import local_pool
from tasks.run import Run
from tasks.runs.drivers import DriverRecord, RunningShard, driver_path, read_drivers
from tasks.runs.heartbeat import Heartbeat
from tests.support.fabricate import finished_run
from tests.support.fakes import make_jobs
from tests.support.notes import Notes

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished_run(tmp_path)


@pytest.fixture
def clock() -> Hands:
    return Hands()


def heartbeat(run: Run, clock: Hands, **execution: object) -> Heartbeat:
    """Return a heartbeat that the test triggers."""
    how = Execution.model_validate({"store": run.store.url, **execution})
    return Heartbeat(run, how, workers=lambda: 2, clock=clock, seconds=3600)


def test_a_driver_records_its_identity_and_its_running_shards_with_their_start(
    run: Run, clock: Hands
) -> None:
    heart = heartbeat(run, clock)
    heart.stage_started("recover", 4, 1)
    clock.move(5)
    heart.job_started("recover", "a")
    heart.job_started("recover", "b")
    clock.move(10)
    heart.write()
    (record,) = read_drivers(run)
    assert record.id == heart.id
    assert (record.state, record.stage, record.workers) == ("running", "recover", 2)
    assert record.stage_started == "2030-01-01T12:00:00+00:00"
    assert record.updated == "2030-01-01T12:00:15+00:00"
    since = "2030-01-01T12:00:05+00:00"
    assert record.running == (
        RunningShard("recover", "a", since),
        RunningShard("recover", "b", since),
    )
    assert (record.done, record.worker_seconds) == (0, {"recover": 20.0})
    assert record.gpu_seconds == {"recover": 0.0}


def test_a_driver_counts_the_shards_it_committed_and_all_of_its_time(
    run: Run, clock: Hands
) -> None:
    heart = heartbeat(run, clock, device="cuda", num_gpus=0.5)
    heart.stage_started("recover", 4, 0)
    for shard in "abcd":
        heart.job_started("recover", shard)
    clock.move(10)
    heart.job_finished("recover", Receipt("1", "a", won=True))
    heart.job_finished("recover", Receipt("2", "b", won=False))
    heart.job_retried("recover", "c", "its worker was lost")
    heart.job_failed("recover", "d", "poisoned")
    clock.move(10)
    record = heart.record()
    assert (record.running, record.done) == ((), 1)
    assert record.worker_seconds == {"recover": 40.0}
    assert record.gpu_seconds == {"recover": 20.0}


def test_the_time_of_each_stage_is_recorded_separately(run: Run, clock: Hands) -> None:
    heart = heartbeat(run, clock, device="cuda", num_gpus=0.25)
    for stage, seconds in (("recover", 40), ("relabel", 8)):
        heart.stage_started(stage, 1, 0)
        heart.job_started(stage, "a")
        clock.move(seconds)
        heart.job_finished(stage, Receipt("1", "a"))
    assert heart.record().worker_seconds == {"recover": 40.0, "relabel": 8.0}
    assert heart.record().gpu_seconds == {"recover": 10.0, "relabel": 2.0}


def test_the_processes_of_a_gang_that_run_are_those_whose_gpus_count(
    run: Run, clock: Hands
) -> None:
    size: list[int | None] = [None]
    config = run.config.model_copy(
        update={"posttrain": run.config.posttrain.model_copy(update={"processes": 4})}
    )
    heart = Heartbeat(
        replace(run, config=config),
        Execution(store=run.store.url, device="cuda"),
        processes=lambda: size[0],
        clock=clock,
        seconds=3600,
    )
    heart.stage_started("posttrain", 1, 0)
    for count, seconds in ((None, 10), (0, 100), (3, 10), (4, 5)):
        size[0] = count
        heart.job_started("posttrain", "a")
        clock.move(seconds)
        assert heart.record().gpus_per_worker == (4 if count is None else count)
        heart.job_retried("posttrain", "a", "its node was lost")
    assert heart.record().gpu_seconds == {"posttrain": 40.0 + 0 + 30 + 20}
    assert heart.record().worker_seconds == {"posttrain": 125.0}


def test_a_shard_that_begins_again_runs_since_then(run: Run, clock: Hands) -> None:
    heart = heartbeat(run, clock)
    heart.stage_started("recover", 1, 0)
    heart.job_started("recover", "a")
    clock.move(30)
    heart.job_started("recover", "a")
    clock.move(1)
    record = heart.record()
    assert record.running == (RunningShard("recover", "a", "2030-01-01T12:00:30+00:00"),)
    assert record.worker_seconds == {"recover": 31.0}


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [(None, "finished", ""), (KeyboardInterrupt, "stopped", "KeyboardInterrupt")],
)
def test_the_last_record_states_how_the_driver_ended(
    run: Run, clock: Hands, error: type[BaseException] | None, state: str, reason: str
) -> None:
    heart = heartbeat(run, clock)
    try:
        with heart:
            heart.stage_started("recover", 1, 0)
            heart.job_started("recover", "a")
            if error is not None:
                raise error
    except KeyboardInterrupt:
        pass
    (record,) = read_drivers(run)
    assert (record.state, record.reason, record.running) == (state, reason, ())
    assert not record.is_alive(clock())
    assert not record.is_lost(clock())


def test_a_driver_writes_its_record_at_the_start_and_every_few_seconds(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    thrice, puts = threading.Event(), []

    def put(self: Store, path: str, data: bytes) -> None:
        puts.append(path)
        if len(puts) == 3:
            thrice.set()

    monkeypatch.setattr(Store, "put", put)
    heart = Heartbeat(run, Execution(store=run.store.url), seconds=0.01)
    with heart:
        assert thrice.wait(30)
    assert set(puts) == {driver_path(run, heart.id)}


def test_an_error_of_the_store_does_not_stop_the_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def refuse(self: Store, path: str, data: bytes) -> None:
        tried.set()
        raise StorageError("full")

    monkeypatch.setattr(Store, "put", refuse)
    with Heartbeat(run, Execution(store=run.store.url), seconds=0.01):
        assert tried.wait(30)
    assert read_drivers(run) == ()


def test_a_driver_silent_for_a_minute_is_lost(run: Run, clock: Hands) -> None:
    heart = heartbeat(run, clock)
    heart.write()
    (record,) = read_drivers(run)
    clock.move(59)
    assert (record.is_alive(clock()), record.is_lost(clock())) == (True, False)
    clock.move(1)
    assert (record.is_alive(clock()), record.is_lost(clock())) == (False, True)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"{}", b'{"id": "x", "updated": "never"}', b'{"id": 1}']
)
def test_an_incomplete_or_foreign_record_is_ignored(run: Run, clock: Hands, data: bytes) -> None:
    heartbeat(run, clock).write()
    run.store.put(driver_path(run, "torn"), data)
    assert len(read_drivers(run)) == 1


def test_a_record_whose_running_shard_has_no_time_is_ignored(run: Run, clock: Hands) -> None:
    tree = json.loads(heartbeat(run, clock).record().to_json())
    tree["running"] = [{"stage": "recover", "shard": "c00000", "since": "yesterday"}]
    tree.pop("record_sha256", None)
    run.store.put(driver_path(run, "odd"), json.dumps(tree).encode())
    assert read_drivers(run) == ()


def test_fields_of_a_newer_version_are_ignored(run: Run, clock: Hands) -> None:
    record = heartbeat(run, clock).record()
    tree = json.loads(record.to_json()) | {"temperature": 60}
    assert DriverRecord.from_json(json.dumps(tree).encode()) == record


def test_every_attempt_of_a_job_is_reported_as_started(tmp_path: Path) -> None:
    notes, jobs = Notes(), make_jobs(2)
    twice = Job("k2", "s2", {"error": "ValueError", "once": str(tmp_path / "once")})
    pool = local_pool(WorkerSpec("tests.support.fakes:FakeWorker"))
    dispatch([*jobs, twice], pool, observer=notes)
    assert notes.started == ["s0", "s1", "s2", "s2"]
    assert notes.finished == ["s0", "s1", "s2"]
