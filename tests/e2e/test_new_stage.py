"""A new stage is one file and one row: everything else finds it in the table."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.estimate.workload import shards_by_stage
from flows.maintenance.verify import verify_run
from flows.orchestration.prefect_flow import task_of
from flows.progress.meter import unit_of
from flows.status.status import run_status
from tasks.gc.collect import collect
from tasks.run import Run, create_run
from tasks.stages.names import StageId
from tasks.stages.table import STAGES, stages_of
from tests.support.pipeline import execute, manifest
from tests.support.toy_stage import ROW

BRIGHTNESS = StageId(ROW.kind)
SMALL = (
    "ipc=2",
    "data.num_classes=4",
    "squeeze.model.width=4",
    "squeeze.training.epochs=1",
    "squeeze.training.threads=1",
    "recover.ipc_range=1",
    "recover.steps=2",
    "relabel.views=1",
    "relabel.views_per_shard=1",
    "posttrain.students=[{name: convnet3, width: 4}]",
    "posttrain.epochs=1",
    "posttrain.evaluate_every=1",
    "posttrain.sets=[distilled]",
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a complete run of a product that has one stage more."""
    monkeypatch.setitem(STAGES, ROW.kind, ROW)  # type: ignore[arg-type]
    made = create_run(load_run("rehearsal-21k", SMALL), Store(str(tmp_path)))
    execute(made)
    return made


def test_a_new_stage_is_planned_run_and_resumed(run: Run) -> None:
    assert stages_of(run.config)[-1] == BRIGHTNESS
    entries = manifest(run, "brightness").entries
    assert [entry.shard for entry in entries] == [
        f"{entry.shard}_mean" for entry in manifest(run, "recover").entries
    ]
    shard_store = ShardStore(run.store, "brightness")
    marker = shard_store.marker(entries[0].key)
    assert marker is not None
    assert 0 <= json.loads(shard_store.load(marker, "json")) <= 255
    run.store.delete(shard_store.marker_path(entries[0].key))
    assert execute(run).ran == [("brightness", entries[0].shard)]


def test_status_estimates_verification_and_collection_include_a_new_stage(run: Run) -> None:
    stage = next(stage for stage in run_status(run).stages if stage.stage == BRIGHTNESS)
    assert (stage.complete, stage.total) == (True, 2)
    assert shards_by_stage(run.config)["brightness"] == 2
    assert unit_of("brightness") == "shards"
    assert not verify_run(run).damage
    later = datetime.now(UTC) + timedelta(days=30)
    assert not collect(run.store, clock=lambda _store: later).removed
    damaged = run.store.names("brightness/data")[0]
    run.store.put(f"brightness/data/{damaged}", b"0")
    assert [damage.path for damage in verify_run(run).damage] == [f"brightness/data/{damaged}"]


def test_a_new_stage_is_a_task_of_the_prefect_flow(run: Run) -> None:
    task = task_of(stages_of(run.config)[-1])
    assert (task.name, task.description) == ("brightness", ROW.summary)
