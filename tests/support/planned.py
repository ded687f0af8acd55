"""Runs whose shards have the keys of their plans and a few bytes each, without training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.data.index_files import open_index
from distill_core.data.ingest import ingest
from distill_core.keys import NUMERICS
from distill_core.models.spec import TeacherSpec
from distill_core.storage.manifest import Manifest, load_manifest, save_manifest
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore, new_token
from distill_core.storage.store import Store
from tasks.jobs import Job
from tasks.run import Run, create_run
from tasks.runs.drivers import DriverRecord, driver_path
from tasks.stages.dataset_record import record_dataset
from tasks.stages.inputs import NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan, manifests_of
from tasks.stages.table import chained_kinds
from tests.support.datasets import data_config, image_folder
from tests.support.fabricate import preset_file

SHARDED_STAGES = tuple(kind for kind in chained_kinds() if kind != "statistics")
KINDS = ("ingest", *SHARDED_STAGES)  # that have shards in these runs
STARTED = "2026-01-01T00:00:00+00:00"
OVERRIDES = ("data.num_classes=2", "recover.ipc_range=1", "relabel.views_per_shard=1")


class Workshop:
    """Makes runs over one ingested dataset of two classes.

    Args:
        folder: for the dataset, its index and the preset.
    """

    def __init__(self, folder: Path) -> None:
        self._preset = str(preset_file(folder))
        data, template = image_folder(folder / "data"), Store(str(folder / "index"))
        self.dataset = ingest(data_config(data), template).id
        files = (*template.files("datasets"), *template.files("ingest"))
        self._files = {file.path: template.read(file.path) for file in files}
        parts = ShardStore(template, "ingest")
        self._parts = [mark for mark in parts.markers(sorted(parts.done())) if mark is not None]

    def register(self, store: Store, name: str, *overrides: str) -> Run:
        """Register a run that has not ingested its dataset yet."""
        return create_run(load_run(self._preset, (*OVERRIDES, *overrides)), store, name)

    def ingest(self, run: Run) -> None:
        """Do the ingest stage; what there is already, even if damaged, stays as it is."""
        for path, data in self._files.items():
            if not run.store.exists(path):
                run.store.put(path, data)
        save_manifest(run.store, run.name, Manifest.of("ingest", self._parts))
        record_dataset(run, open_index(run.store, self.dataset))

    def finished(self, store: Store, name: str, *overrides: str) -> Run:
        """Return a run of which every stage is done."""
        run = self.register(store, name, *overrides)
        self.ingest(run)
        for stage in SHARDED_STAGES:
            finish(run, stage)
        return run


def jobs(run: Run, stage: str) -> list[Job]:
    """Return every job of a stage."""
    return [job for part in JobPlan(run).jobs(StageId(stage)).values() for job in part]


def finish(run: Run, stage: str) -> None:
    """Commit what a stage lacks and write its manifests."""
    for name, part in JobPlan(run).jobs(StageId(stage)).items():
        made = [replace(commit(run, stage, job), shard=job.shard) for job in part]
        save_manifest(run.store, run.name, Manifest.of(str(name), made, numerics=NUMERICS))


def commit(run: Run, stage: str, job: Job) -> Marker:
    """Return the marker of a job, committing a few bytes if there is none."""
    shard_store = ShardStore(run.store, stage)
    there = shard_store.marker(job.key)
    return there or shard_store.commit(
        job.key,
        shard=job.shard,
        files=_files(run, stage),
        facts=ShardFacts(rows=1, classes=2, seconds=1.0, device="cpu"),
    )


def begin(run: Run, stage: str = "ingest") -> None:
    """Leave the record of a driver that was killed in a stage."""
    record = DriverRecord("0123abcd", "host", 1, "cpu", STARTED, STARTED, stage=stage)
    run.store.put(driver_path(run, record.id), record.to_json())


def drop(run: Run) -> None:
    """Delete the folder of a run."""
    for file in run.store.files(f"runs/{run.name}"):
        run.store.delete(file.path)


def paths(store: Store) -> set[str]:
    """Return every object of a store, partial files included."""
    return {file.path for file in store.files("", partial=True)}


def wanted(run: Run) -> set[tuple[str, str]]:
    """Return stage and key of what a run's manifests name or, without them, its plan.

    Without a manifest of ingestion, nothing is known of its shards.
    """
    ingested = load_manifest(run.store, run.name, "ingest")
    found = {("ingest", entry.key) for entry in (ingested.entries if ingested else ())}
    for stage in SHARDED_STAGES:
        manifests = [
            load_manifest(run.store, run.name, str(name))
            for name in manifests_of(run, StageId(stage))
        ]
        if all(manifests):
            found |= {(stage, entry.key) for one in manifests if one for entry in one.entries}
        else:
            with suppress(NotReady):
                found |= {(stage, job.key) for job in jobs(run, stage)}
    return found


def reachable(run: Run) -> set[str]:
    """Return every object that a run needs: its own, its dataset, its markers and their files."""
    store = run.store
    found = {file.path for file in store.files(f"runs/{run.name}")}
    needed = wanted(run)
    try:
        found |= {file.path for file in store.files(f"datasets/{JobPlan(run).dataset}")}
    except NotReady:
        found |= {file.path for file in store.files("datasets") if file.regular}
        needed |= {("ingest", key) for key in ShardStore(store, "ingest").done()}
    for stage, key in needed:
        shard_store = ShardStore(store, stage)
        if marker := shard_store.marker(key):
            found |= {shard_store.marker_path(key), *(info.path for info in marker.files)}
    return found


def stray(store: Store, stage: str, key: str) -> str:
    """Write the data of an attempt without a commit; return its path."""
    path = f"{stage}/data/{key}-{new_token()}.parquet"
    store.put(path, b"stray")
    return path


def checkpoint(store: Store, stage: str, key: str) -> list[str]:
    """Leave a checkpoint; return its paths."""
    folder = f"{stage}/checkpoints/{key}-{new_token()}"
    paths = [f"{folder}/pointer.json", f"{folder}/step-000001.safetensors"]
    for path in paths:
        store.put(path, b"{}")
    return paths


def date(store: Store, paths: Iterable[str], moment: datetime) -> None:
    """Set the time at which objects of a store in memory or on a disk were written."""
    if "://" not in store.url:
        for path in paths:
            os.utime(Path(store.url, path), (moment.timestamp(),) * 2)
        return
    files = store._backend.fs.store  # type: ignore[attr-defined]
    for path in paths:
        files["/" + store.uri(path).removeprefix("memory://")].created = moment


def _files(run: Run, stage: str) -> dict[str, bytes]:
    if stage != "squeeze":
        return {"parquet": b"rows", "trace.json": b"{}"}
    spec = TeacherSpec(
        model=run.config.squeeze.model,
        num_classes=2,
        class_hash=JobPlan(run).index.class_hash,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        side=8,
        features=16,
        origin="nowhere",
    )
    weights = f"seed {run.config.seed}".encode()
    return {"safetensors": weights, "json": spec.to_json()}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return what makes runs."""
    return Workshop(tmp_path_factory.mktemp("workshop"))
