"""Checkpoints never end a training; a result that another driver has committed does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.errors import StorageError, StorageRefused
from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from distill_core.training import streaming
from tasks.jobs import Job, Receipt
from tasks.run import Run, create_run
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.squeeze import SqueezePayload, SqueezeWorker
from tasks.stages.worker import WorkerContext
from tests.support.pipeline import execute

EPOCHS = 3
SMALL = (
    "data.num_classes=8",
    "squeeze.model.width=4",
    f"squeeze.training.epochs={EPOCHS}",
    "squeeze.training.threads=1",
    "squeeze.training.batch_size=8",
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run whose dataset is ingested."""
    run = create_run(load_run("rehearsal-21k", SMALL), Store(str(tmp_path)), "small")
    execute(run, "ingest")
    return run


@pytest.fixture
def undisturbed(run: Run, tmp_path: Path) -> Run:
    """Return the same run in another store, where its teacher was trained without interruption."""
    other = Run(run.name, run.config, Store(str(tmp_path / "undisturbed")))
    create_run(run.config, other.store, run.name)
    execute(other, "ingest")
    train(other)
    return other


def train(run: Run, **planned: str) -> Receipt:
    """Train the teacher in this process."""
    where = {"run": run.config.model_dump_json(), "name": run.name, "store": run.store.url}
    return SqueezeWorker(**where, device="cpu", planned=planned).run(job_of(run))


def job_of(run: Run) -> Job[SqueezePayload]:
    (job,) = JobPlan(run).jobs(StageId("squeeze"))[StageId("squeeze")]
    return job


def weights(run: Run) -> str:
    """Return the digest of the teacher in the store."""
    marker = ShardStore(run.store, "squeeze").marker(job_of(run).key)
    assert marker is not None
    return marker.file("safetensors").sha256


def commit_elsewhere(run: Run) -> Marker:
    """Commit something as the teacher, as another driver may at any moment."""
    return ShardStore(run.store, "squeeze").commit(
        job_of(run).key,
        shard="elsewhere",
        files={"safetensors": b"x"},
        facts=ShardFacts(rows=1, classes=1, seconds=0.0, device="cpu"),
    )


def after_checkpoint(
    monkeypatch: pytest.MonkeyPatch, epoch: int | tuple[int, int], action: Callable[[], object]
) -> list[int]:
    """Do something once the checkpoint after an epoch, or after batches of the next one, is saved.

    Returns:
        The epochs saved so far.
    """
    save, saved = Checkpoints.save, list[int]()

    def save_and_act(self: Checkpoints, step: int, payload: bytes, *, batches: int = 0) -> None:
        save(self, step, payload, batches=batches)
        saved.append(step)
        if (step, batches) in (epoch, (epoch, 0)):
            action()

    monkeypatch.setattr(Checkpoints, "save", save_and_act)
    return saved


def checkpoints(run: Run) -> list[str]:
    """Return the checkpoint files that lie in the store."""
    folder = "squeeze/checkpoints"
    return [
        name for each in run.store.folders(folder) for name in run.store.names(f"{folder}/{each}")
    ]


def test_a_training_whose_result_is_committed_elsewhere_stops_at_its_next_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Checkpoints(run.store, "squeeze", job_of(run).key, "2" * 32)
    other.save(0, b"state of another driver")
    saved = after_checkpoint(monkeypatch, 1, lambda: commit_elsewhere(run))
    receipt = train(run)
    assert (receipt.won, receipt.shard, saved) == (False, "elsewhere", [1])
    assert checkpoints(run) == ["pointer.json", "step-000000.safetensors"]  # its own are deleted


@pytest.mark.parametrize("error", [StorageError, StorageRefused])
def test_a_checkpoint_that_cannot_be_saved_is_a_notice_and_training_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[StorageError]
) -> None:
    put = Store.put

    def full(self: Store, path: str, data: bytes) -> None:
        if "/checkpoints/" in path:
            raise error(f"{path}: cannot be written (no space left on device).")
        put(self, path, data)

    monkeypatch.setattr(Store, "put", full)
    receipt = train(run)
    assert (receipt.won, receipt.summary["epochs"]) == (True, EPOCHS)
    starts = [f"The checkpoint after epoch {epoch + 1} was not saved" for epoch in range(EPOCHS)]
    assert [notice.partition(":")[0] for notice in receipt.notices] == starts


def test_a_damaged_checkpoint_costs_an_epoch_and_no_byte_of_the_result(
    run: Run, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        after_checkpoint(patch, 2, die)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    (folder,) = run.store.folders("squeeze/checkpoints")
    path = f"squeeze/checkpoints/{folder}/step-000002.safetensors"
    run.store.put(path, run.store.read(path)[:-100])
    saved = after_checkpoint(monkeypatch, 0, die)
    receipt = train(run)
    assert saved == [2, 3]
    assert ["step-000002" in notice for notice in receipt.notices] == [True]
    assert weights(run) == weights(undisturbed)
    assert checkpoints(run) == []


def test_a_training_killed_inside_an_epoch_goes_on_in_it(
    run: Run, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        after_checkpoint(patch, (1, 2), die)
        with pytest.raises(KeyboardInterrupt):
            train(run, checkpoint_every="1 step")
    (folder,) = run.store.folders("squeeze/checkpoints")
    (kept,) = [n for n in run.store.names(f"squeeze/checkpoints/{folder}") if "-000002." in n]
    assert kept == "step-000001-000002.safetensors"
    steps: list[int] = []
    monkeypatch.setattr(WorkerContext, "progress", lambda self, done, total: steps.append(done))
    train(run)
    assert steps[0] == steps[-1] // EPOCHS + 3
    assert weights(run) == weights(undisturbed)
    assert checkpoints(run) == []


def test_a_test_split_in_blocks_gives_the_same_teacher_and_accuracy(
    run: Run, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BLOCKS_BYTES", 1)
    accuracy = train(run).summary["accuracy"]
    other = ShardStore(undisturbed.store, "squeeze").marker(job_of(undisturbed).key)
    assert other is not None
    assert accuracy == other.summary["accuracy"] > 0
    assert weights(run) == weights(undisturbed)
