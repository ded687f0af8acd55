"""Deleting a marker of a complete run makes its shard again, and no other."""

from __future__ import annotations

from pathlib import Path

from distill_core.storage.shard_store import ShardStore
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
