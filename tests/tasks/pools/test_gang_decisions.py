"""The processes of a gang agree, even if each of them lists another store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch.distributed

from distill_core.config.load import load_run
from distill_core.squeeze.teacher import train_teacher
from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import DispatchResult
from tasks.pools.local import local_pool
from tasks.run import Run, create_run
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.squeeze import SqueezeWorker
from tasks.stages.worker import WorkerContext
from tests.support.pipeline import execute

SMALL = (
    "data.num_classes=8",
    "squeeze.model.width=4",
    "squeeze.training.epochs=2",
    "squeeze.training.threads=1",
    "squeeze.training.batch_size=8",
    "squeeze.training.processes=2",
)
LIMIT_SECONDS = 120  # a gang that disagrees waits for ever; this only ends it


class SeesItsOwnStore:
    """Trains a teacher; each rank reads and writes another store."""

    def __init__(self, *, stores: list[str], **context: str) -> None:
        store = stores[torch.distributed.get_rank()]
        self.worker = SqueezeWorker(store=store, **context)

    def run(self, job: Job) -> Receipt:
        """Train."""
        return self.worker.run(job)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Return the same ingested run in two stores, one per rank."""
    first = create_run(load_run("rehearsal-21k", SMALL), Store(str(tmp_path / "0")), "gang")
    execute(first, "ingest")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    return [first, Run(first.name, first.config, Store(str(tmp_path / "1")))]


def copies(runs: list[Run]) -> list[Run]:
    """Return the same runs in stores of their own."""
    return [
        Run(run.name, run.config, Store(str(shutil.copytree(run.store.url, f"{run.store.url}-b"))))
        for run in runs
    ]


def job_of(run: Run) -> Job:
    """Return the job that trains the teacher."""
    (job,) = JobPlan(run).jobs(StageId("squeeze"))[StageId("squeeze")]
    return job


def train(runs: list[Run]) -> DispatchResult:
    """Train the teacher in a gang of two."""
    run = runs[0]
    context = {"run": run.config.model_dump_json(), "name": run.name, "device": "cpu"}
    stores = [one.store.url for one in runs]
    spec = WorkerSpec(f"{__name__}:SeesItsOwnStore", {**context, "stores": stores})
    pool = local_pool(spec, processes=2)
    policy = RetryPolicy(max_attempts=1, job_timeout_seconds=LIMIT_SECONDS)
    try:
        return dispatch([job_of(run)], pool, policy=policy)
    finally:
        pool.close()


def weights(run: Run) -> str:
    """Return the hash of the teacher that was committed."""
    marker = ShardStore(run.store, "squeeze").marker(job_of(run).key)
    assert marker is not None
    return marker.file("safetensors").sha256


def finish(run: Run) -> None:
    """Commit something as the teacher, as another driver may at any moment."""
    ShardStore(run.store, "squeeze").commit(
        job_of(run).key,
        shard="elsewhere",
        files={"safetensors": b"x"},
        facts=ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu"),
    )


class Kept(dict[int, bytes]):
    """Checkpoints in memory."""

    def save(self, step: int, state: Callable[[], bytes], *, batches: int = 0) -> None:
        """Keep one."""
        self[step] = state()

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Have none to begin with."""
        return iter(())


@pytest.fixture
def after_one_epoch(runs: list[Run]) -> bytes:
    """Return the state of the teacher after its first epoch."""
    context = WorkerContext(
        "squeeze",
        run=runs[0].config.model_dump_json(),
        name="gang",
        store=runs[0].store.url,
        device="cpu",
    )
    kept, test = Kept(), Labelled(*context.split("test"))
    train_teacher(
        Labelled(*context.split("train")),
        test,
        run=context.config,
        class_hash=context.plan.index.class_hash,
        runtime=TrainingRuntime(checkpoints=kept),
    )
    return kept[1]


def keep(run: Run, payload: bytes) -> None:
    """Keep a state after one epoch, as another driver's execution."""
    Checkpoints(run.store, "squeeze", job_of(run).key, "another").save(1, payload)


@pytest.mark.slow
def test_a_marker_visible_to_a_later_rank_only_is_ignored_by_the_whole_gang(
    runs: list[Run],
) -> None:
    finish(runs[1])
    (receipt,) = train(runs).receipts
    assert (receipt.won, receipt.summary["epochs"]) == (True, 2)


@pytest.mark.slow
def test_a_marker_visible_to_the_first_rank_ends_the_job_in_every_rank(runs: list[Run]) -> None:
    finish(runs[0])
    (receipt,) = train(runs).receipts
    assert (receipt.won, receipt.shard) == (False, "elsewhere")


@pytest.mark.slow
def test_every_rank_resumes_from_the_checkpoint_of_the_first_rank(
    runs: list[Run], after_one_epoch: bytes
) -> None:
    both = copies(runs)
    for run in (runs[0], *both):
        keep(run, after_one_epoch)
    assert train(both).failed == {}
    assert train(runs).failed == {}
    assert weights(runs[0]) == weights(both[0])


@pytest.mark.slow
def test_a_checkpoint_visible_to_a_later_rank_only_is_ignored(
    runs: list[Run], after_one_epoch: bytes
) -> None:
    none = copies(runs)
    keep(runs[1], after_one_epoch)
    assert train(none).failed == {}
    assert train(runs).failed == {}
    assert weights(runs[0]) == weights(none[0])
