"""A whole run that takes seconds: digits at full size, a narrow teacher, a handful of steps."""

from __future__ import annotations

import shutil
from pathlib import Path

from distill_core.config.load import load_run
from distill_core.data.index_files import open_index
from distill_core.storage.manifest import Manifest, load_manifest
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.observer import Observer
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run
from tasks.runs.run_stage import run_stage
from tasks.stages.dataset_record import record_dataset
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tasks.stages.table import stages_of

TINY = (
    "ipc=2",
    "squeeze.model.width=4",
    "squeeze.training.epochs=1",
    "recover.ipc_range=1",
    "recover.steps=4",
    "relabel.views=4",
    "relabel.views_per_shard=2",
    "posttrain.students=[{name: resnet18_small, width: 4}]",
    "posttrain.epochs=2",
    "posttrain.evaluate_every=2",
)
IMAGE_AND_LABEL_MANIFESTS = ("recover", "recover.random_real", "relabel", "relabel.random_real")


class Recorder(Observer):
    """Notes which shards ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Ignore."""

    def stage_notice(self, stage: str, text: str) -> None:
        """Ignore."""

    def job_started(self, stage: str, shard: str) -> None:
        """Ignore."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Ignore."""

    def job_finished(self, stage: str, receipt: object) -> None:
        """Note the shard."""
        self.ran.append((stage, receipt.shard))  # type: ignore[attr-defined]

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Ignore."""

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Ignore."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Ignore."""


def tiny_run(folder: Path, *overrides: str) -> Run:
    """Register the tiny run in a folder."""
    return create_run(load_run("digits-demo", (*TINY, *overrides)), Store(str(folder)))


def execute(run: Run, *stages: str, workers: int = 1, local: bool = True) -> Recorder:
    """Run some stages (all by default) and return what ran."""
    execution = Execution(store=run.store.url, local=local, workers=workers)
    recorder = Recorder()
    with PoolProvider(execution) as pools:
        for stage in map(StageId.parse, stages) if stages else stages_of(run.config):
            run_stage(run, stage, execution=execution, observer=recorder, pools=pools)
    return recorder


def manifest(run: Run, name: str) -> Manifest:
    """Return a manifest that must be there."""
    found = load_manifest(run.store, run.name, name)
    assert found is not None, name
    return found


def same_teacher(reference: Run, folder: Path, *overrides: str) -> Run:
    """Return the same run in another store, with the teacher and the index but nothing later."""
    run = tiny_run(folder, *overrides)
    for part in ("datasets", "squeeze"):
        shutil.copytree(Path(reference.store.url, part), folder / part)
    record_dataset(run, open_index(run.store, dataset_of(reference)))
    name = "squeeze.manifest.json"
    shutil.copy(Path(reference.store.url, reference.path(name)), folder / run.path(name))
    return run
