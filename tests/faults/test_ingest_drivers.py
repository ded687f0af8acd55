"""Ingestion while a worker is killed, and by two drivers at once: every part is committed once."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from distill_core.config.load import load_run
from distill_core.data.index_files import load_index
from distill_core.data.ingest import ingest
from distill_core.data.readers import parts as bounds
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from tasks.execution import Execution
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run
from tasks.runs.run_stage import run_stage
from tasks.runs.stage_status import stage_status
from tasks.stages.inputs import RunInputs
from tasks.stages.names import StageId
from tests.support.datasets import png
from tests.support.fault_runs import Watch, markers_of

pytestmark = pytest.mark.usefixtures("no_faults")

INGEST = StageId("ingest")
RECORDS = 3  # of a part
FILES = {
    f"{split}/c{label}/{n}.png": png(100 * label + 10 * n + (split == "test"))
    for split, count in (("train", 9), ("test", 3))
    for label in range(6)
    for n in range(count)
}
PARTS = len(FILES) // RECORDS
WAIT_SECONDS = 180


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run over many parts of three images each."""
    monkeypatch.setattr(bounds, "PART_RECORDS", RECORDS)
    for path, data in FILES.items():
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).write_bytes(data)
    chosen = ("data.format=imagefolder", f"data.path={tmp_path / 'data'}", "data.num_classes=6")
    return create_run(load_run("digits-demo", chosen), Store(str(tmp_path / "store")), "small")


def check(run: Run) -> None:
    """Assert that the dataset is that of an undisturbed ingestion, and every part is there once."""
    other = Store(f"{run.store.url}-other")
    undisturbed = load_index(other, ingest(run.config.data, other).id)
    assert load_index(run.store, RunInputs(run).index.id) == undisturbed
    markers = markers_of(ShardStore(run.store, "ingest"))
    assert len(markers) == PARTS
    named = {info.path for marker in markers for info in marker.files}
    assert {f"ingest/data/{name}" for name in run.store.names("ingest/data")} == named
    status = stage_status(run, INGEST)
    assert (status.complete, status.total, status.done) == (True, PARTS, PARTS)
    assert verify_run(run).damage == ()


class Killer(Watch):
    """Kills a worker at the start of some jobs, counted from 1."""

    def __init__(self, *at: int) -> None:
        super().__init__()
        self.at, self.killed = at, list[int]()

    def job_started(self, stage: str, shard: str) -> None:
        """Kill one of the workers, if this is one of the jobs."""
        super().job_started(stage, shard)
        workers = [child for child in multiprocessing.active_children() if child.pid is not None]
        if len(self.started) in self.at:
            workers[-1].kill()
            self.killed.append(workers[-1].pid or 0)


def test_a_dataset_is_whole_though_a_worker_is_killed_while_it_is_read(run: Run) -> None:
    killer = Killer(4)
    execution = Execution(store=run.store.url, local=True, workers=2)
    with PoolProvider(execution) as pools:
        run_stage(run, INGEST, execution=execution, observer=killer, pools=pools)
    assert len(killer.killed) == 1
    assert killer.failed == []
    check(run)


class ActorKiller(Watch):
    """Kills a Ray actor at the start of a job, counted from 1, and notes what is committed then."""

    def __init__(self, run: Run, *, at: int) -> None:
        super().__init__()
        self.run, self.at = run, at
        self.killed: list[int] = []
        self.committed: list[Marker] = []

    def job_started(self, stage: str, shard: str) -> None:
        """Kill one of the actors, if this is the job."""
        super().job_started(stage, shard)
        if len(self.started) != self.at:
            return
        self.committed = list(markers_of(ShardStore(self.run.store, "ingest")))
        for process in psutil.Process().children(recursive=True):
            title = " ".join(process.cmdline())
            if title.startswith("ray::IngestWorker"):
                process.kill()
                self.killed.append(process.pid)
                return


@pytest.mark.slow
@pytest.mark.cluster
def test_nothing_that_is_committed_is_read_again_after_a_ray_actor_was_killed(run: Run) -> None:
    """A part that is read twice would leave the data of the other attempt, which `check` finds."""
    killer = ActorKiller(run, at=12)
    execution = Execution(store=run.store.url, workers=2, num_cpus=0.5)
    with PoolProvider(execution) as pools:
        run_stage(run, INGEST, execution=execution, observer=killer, pools=pools)
    assert len(killer.killed) == 1
    assert killer.failed == []
    assert len(killer.committed) >= 5
    finished = list(markers_of(ShardStore(run.store, "ingest")))
    assert all(marker in finished for marker in killer.committed)
    check(run)


DRIVER = """
import sys
from distill_core.data.readers import parts
from distill_core.storage.store import Store
from flows.progress.event_log import EventLog
from tasks.execution import Execution
from tasks.pools.provider import PoolProvider
from tasks.run import open_run
from tasks.runs.run_stage import run_stage
from tasks.stages.names import StageId
parts.PART_RECORDS = int(sys.argv[2])
run, execution = open_run(Store(sys.argv[1]), "small"), Execution(store=sys.argv[1], local=True)
log = EventLog(run)
with PoolProvider(execution) as pools:
    run_stage(run, StageId("ingest"), execution=execution, observer=log, pools=pools)
"""


def test_two_drivers_at_once_commit_every_part_once(run: Run) -> None:
    command = [sys.executable, "-c", DRIVER, run.store.url, str(RECORDS)]
    drivers = [subprocess.Popen(command) for _ in range(2)]
    assert [driver.wait(timeout=WAIT_SECONDS) for driver in drivers] == [0, 0]
    check(run)
    logs = [
        run.store.read(run.path("events", name)) for name in run.store.names(run.path("events"))
    ]
    events = [json.loads(line) for log in logs for line in log.decode().splitlines()]
    won = Counter(each["key"] for each in events if each["event"] == "job_finished" and each["won"])
    assert set(won.values()) == {1}
    assert len(won) == PARTS
