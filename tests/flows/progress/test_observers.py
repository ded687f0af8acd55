"""Observers inform: none of them can end a stage or make it wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from distill_core.errors import StorageError
from distill_core.storage.store import Store
from flows.progress.background import Background, background
from flows.progress.event_log import EventLog
from flows.progress.followers import Detached, Several
from flows.runs import pipeline
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.local import local_pool
from tests.support.fabricate import finished_run
from tests.support.fakes import make_jobs
from tests.support.pipeline import Recorder


class Raising(Recorder):
    """Raises at every event."""

    def __getattribute__(self, name: str) -> object:
        if name.startswith(("job_", "stage_")):
            raise StorageError("the store is away")
        return super().__getattribute__(name)


class Hanging(Recorder):
    """Hangs at every event until the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.release = threading.Event(), threading.Event()

    def job_finished(self, stage: str, receipt: object) -> None:
        """Hang."""
        self.reached.set()
        self.release.wait()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Return an observer that hangs, and release it at the end."""
    observer = Hanging()
    yield observer
    observer.release.set()


def run_jobs(observer: object, count: int = 5) -> int:
    """Run jobs in this process, and return how many were done."""
    pool = local_pool(WorkerSpec("tests.support.fakes:FakeWorker"), workers=1, device="cpu")
    try:
        return len(dispatch(make_jobs(count), pool, observer=observer).receipts)  # type: ignore[arg-type]
    finally:
        pool.close()


def test_an_observer_that_raises_ends_no_stage_and_is_one_warning() -> None:
    warnings, after = list[str](), Recorder()
    assert run_jobs(Several(Raising(), after, warn=warnings.append)) == 5
    assert [shard for _, shard in after.ran] == ["s0", "s1", "s2", "s3", "s4"]
    assert warnings == [
        "Raising: StorageError: the store is away. The stages are not affected.",
    ]


def test_an_observer_that_hangs_delays_no_job(hanging: Hanging) -> None:
    calls = Background("display")
    assert run_jobs(Several(Detached(hanging, calls))) == 5
    assert hanging.reached.wait(60)
    calls.close(0.1)  # gives up


def test_calls_that_nobody_takes_are_dropped_with_one_warning(hanging: Hanging) -> None:
    warnings = list[str]()
    calls = Background("display", warn=warnings.append, size=2)
    calls.call(hanging.job_finished, "recover", None)
    assert hanging.reached.wait(60)
    for _ in range(10):
        calls.call(print)
    (warning,) = warnings
    assert "too slow" in warning
    hanging.release.set()
    calls.close()


def test_a_call_that_raises_is_followed_by_the_next_one() -> None:
    warnings, done = list[str](), list[int]()
    calls = Background("event log", warn=warnings.append)
    for number in range(3):
        calls.call(int, "x")
        calls.call(done.append, number)
    calls.close()
    assert done == [0, 1, 2]
    assert len(warnings) == 1


def test_the_calls_of_a_block_are_made_by_its_end() -> None:
    done = list[int]()
    with background("event log") as calls:
        for number in range(500):
            calls.call(done.append, number)
    assert done == list(range(500))


class SlowStore:
    """A store whose writes hang until the test ends."""

    def __init__(self) -> None:
        self.release, self.parts = threading.Event(), list[str]()

    def put(self, path: str, data: bytes) -> None:
        """Hang, then take the object."""
        self.release.wait()
        self.parts.append(path)


def test_a_stage_does_not_wait_for_the_part_of_its_event_log(tmp_path: Path) -> None:
    run, store = finished_run(tmp_path), SlowStore()
    calls = Background("event log")
    log = EventLog(run, driver="d", write=partial(calls.call, store.put))
    for stage in ("recover", "relabel"):
        log.stage_started(stage, 2, 0)
        log.stage_finished(stage, 1.0)
    assert store.parts == []
    store.release.set()
    calls.close()
    assert store.parts == [run.path("events", f"d-000{part}.jsonl") for part in (0, 1)]


def test_a_run_ends_well_although_its_event_log_and_heartbeat_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path)
    put = Store.put

    def refuse(store: Store, path: str, data: bytes) -> None:
        if "/events/" in path or "/drivers/" in path:
            raise OSError("no space left on device")
        put(store, path, data)

    monkeypatch.setattr(Store, "put", refuse)
    with pipeline.opened(run, Execution(store=run.store.url, local=True), {}) as work:
        work._observer.stage_started("recover", 1, 0)
        work._observer.stage_finished("recover", 1.0)
    error = capsys.readouterr().err
    assert "event log: OSError: no space left on device. The stages are not affected." in error
    assert not run.store.names(run.path("events"))
