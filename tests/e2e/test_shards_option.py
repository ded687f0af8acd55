"""`--shards` starts no stage beyond those that make the selected shards, unless it is told to."""

from __future__ import annotations

from pathlib import Path

from distill_core.storage.shard_store import ShardStore
from flows.runs.shard_selection import by_number, intents
from flows.status.status import run_status
from tasks.run import Run
from tests.support.cli import Distill
from tests.support.pipeline import execute, manifest, tiny_run


def lose_shard(run: Run) -> str:
    """Delete an image shard with number 1 and the manifest, and return the name of the shard."""
    lost = manifest(run, "recover").entries[1]
    run.store.delete(ShardStore(run.store, "recover").marker_path(lost.key))
    run.store.delete(run.path("recover.manifest.json"))
    return lost.shard


def test_shards_of_one_stage_start_no_later_stage(tmp_path: Path, distill: Distill) -> None:
    run = tiny_run(tmp_path, "recover.steps=1", "posttrain.epochs=1", "posttrain.evaluate_every=1")
    execute(run, "ingest", "squeeze", "select", "recover")
    lost = lose_shard(run)
    command = ("resume", run.name, "--shards", "1", "--store", run.store.url, "--local")
    planned = intents(run, run_status(run), by_number(run, "1"))
    assert [(i.stage, i.shards) for i in planned] == [("recover", (lost,))]
    planned = intents(run, run_status(run), by_number(run, "1", and_later=True))
    assert {i.stage for i in planned} >= {"recover", "relabel", "posttrain"}

    output = distill(*command)
    stages = {str(stage.stage): stage for stage in run_status(run).stages}
    assert stages["recover"].complete
    assert (stages["relabel"].done, stages["posttrain"].done) == (0, 0)
    assert "relabel: not started, because the selected shards belong" in output.err
    assert (output.code, "--and-later" in output.err) == (0, True)


def test_going_on_to_later_stages_needs_shards(tmp_path: Path, distill: Distill) -> None:
    run = tiny_run(tmp_path)
    output = distill("resume", run.name, "--and-later", "--store", run.store.url, "--local")
    assert (output.code, "--and-later: goes with --shards only" in output.err) == (2, True)
