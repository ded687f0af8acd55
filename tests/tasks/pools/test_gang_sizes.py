"""A training goes on with another number of processes, and its teacher does not change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from distill_core.config.load import load_run
from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import DispatchResult
from tasks.pools.local import local_pool
from tasks.run import Run, create_run
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.squeeze import SqueezeWorker
from tests.support.pipeline import execute

SMALL = (
    "data.num_classes=8",
    "squeeze.model.name=mobilenet_v3_small",  # batch norm and dropout
    "squeeze.model.width=null",
    "squeeze.training.epochs=2",
    "squeeze.training.threads=1",
    "squeeze.training.batch_size=8",
    "squeeze.training.processes=2",
)
LIMIT_SECONDS = 120  # a gang that disagrees waits for ever; this only ends it


class Stops:
    """Trains a teacher, and fails directly after the checkpoint of some epochs and batches."""

    def __init__(self, *, stop: list[int], **context: Any) -> None:
        self.worker, save = SqueezeWorker(**context), Checkpoints.save

        def save_and_stop(own: Checkpoints, step: int, payload: bytes, *, batches: int = 0) -> None:
            save(own, step, payload, batches=batches)
            if [step, batches] == stop:
                raise RuntimeError("stopped")

        Checkpoints.save = save_and_stop  # type: ignore[method-assign]

    def run(self, job: Job[Any]) -> Receipt:
        """Train."""
        return self.worker.run(job)


def job_of(run: Run) -> Job[Any]:
    """Return the job that trains the teacher."""
    (job,) = JobPlan(run).jobs(StageId("squeeze"))[StageId("squeeze")]
    return job


def train(run: Run, *, processes: int, stop: tuple[int, ...] = ()) -> DispatchResult:
    """Train the teacher in some processes, to its end or to the place where it fails."""
    context = {
        "run": run.config.model_dump_json(),
        "name": run.name,
        "store": run.store.url,
        "device": "cpu",
        "planned": {"checkpoint_every": "1 step"},
        "stop": list(stop),
    }
    pool = local_pool(WorkerSpec(f"{__name__}:Stops", context), processes=processes)
    policy = RetryPolicy(max_attempts=1, job_timeout_seconds=LIMIT_SECONDS)
    try:
        return dispatch([job_of(run)], pool, policy=policy)
    finally:
        pool.close()


def teacher(run: Run) -> tuple[str, Any]:
    """Return the hash of the weights and the curve of the teacher that was committed."""
    marker = ShardStore(run.store, "squeeze").marker(job_of(run).key)
    assert marker is not None
    return marker.file("safetensors").sha256, marker.summary["curve"]


@pytest.mark.slow
def test_two_processes_then_one_then_two_make_the_teacher_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gradients are added up in one order only, so even the bytes are equal."""
    run = create_run(load_run("rehearsal-21k", SMALL), Store(str(tmp_path / "0")), "gang")
    execute(run, "ingest")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    undisturbed = Run(run.name, run.config, Store(str(tmp_path / "1")))
    assert train(undisturbed, processes=2).failed == {}
    monkeypatch.setattr(Checkpoints, "save", Checkpoints.save)  # a single process patches it here
    assert train(run, processes=2, stop=(0, 1)).failed.keys() == {"mobilenet_v3_small"}
    assert train(run, processes=1, stop=(1, 1)).failed.keys() == {"mobilenet_v3_small"}
    assert train(run, processes=2).failed == {}
    assert teacher(run) == teacher(undisturbed)
