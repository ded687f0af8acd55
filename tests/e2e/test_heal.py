"""Deleting a marker of a complete run makes its shard again, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

from distill_core.storage.shard_store import ShardStore
from flows.maintenance.verify import verify_run
from flows.status.status import run_status
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.pipeline import execute, manifest, tiny_run


def test_a_deleted_marker_makes_exactly_its_shard_again(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "recover.steps=1", "posttrain.epochs=1", "posttrain.evaluate_every=1")
    execute(run)
    before = manifest(run, "recover")
    lost = before.entries[1]
    run.store.delete(ShardStore(run.store, "recover").marker_path(lost.key))
    status = stage_status(run, StageId("recover"))
    assert (status.complete, status.total, status.done) == (False, 4, 3)
    assert execute(run).ran == [("recover", lost.shard)]
    assert manifest(run, "recover") == before
    assert stage_status(run, StageId("recover")).complete


def test_a_deleted_index_is_made_again(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "recover.steps=1", "posttrain.epochs=1", "posttrain.evaluate_every=1")
    execute(run)
    shutil.rmtree(tmp_path / "datasets")
    assert not stage_status(run, StageId("ingest")).complete
    assert execute(run).ran == [("ingest", "digits")]
    assert run_status(run).complete
    assert not verify_run(run).damage
