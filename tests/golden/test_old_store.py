"""A store that an earlier version wrote is complete for the present one.

`store-before-restructuring.tar.xz` holds a store that version 0.1.0 wrote at commit 0c02985,
before the packages were divided into folders. It has two runs of `rehearsal-21k` on four classes of
8 x 8 pixels: `flat`, and `rounds` with rounds, judged starts, class statistics, hard labels and
validation in blocks. Each was made, all stages in order, as by

    distill run rehearsal-21k OVERRIDES --local --name NAME --store STORE

with the overrides below. Do not make the archive again: its bytes are the expectation. If the
numerics of a stage change on purpose, expect shards of that stage to be missing, and no others.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.keys.base import NUMERICS
from distill_core.storage.manifest import Manifest, manifest_path
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from flows.status.status import run_status
from tasks.run import Run, create_run, open_run
from tasks.runs.stage_status import manifests, stage_status
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan, manifests_of
from tasks.stages.table import stages_of
from tests.support.pipeline import execute

SIZES = (
    "ipc=3",
    "data.num_classes=4",
    "data.side=8",
    "squeeze.model.width=4",
    "squeeze.training.epochs=1",
    "squeeze.training.batch_size=32",
    "squeeze.training.threads=1",
    "recover.steps=2",
    "recover.ipc_range=1",
    "relabel.views=2",
    "relabel.views_per_shard=1",
    "posttrain.students=[{name: convnet3, width: 4}]",
    "posttrain.epochs=2",
    "posttrain.evaluate_every=2",
    "posttrain.batch_size=8",
)
TERMS = "cross_entropy: 1, class_bn_statistics: 0.01, start_distance: 1, adversarial: 1"
ROUNDS = (
    "recover.init=judged",
    f"recover.terms={{{TERMS}}}",
    "rounds={starts: [1], student: {name: convnet3, width: 4}, epochs: 2, warm_lr: 5e-4}",
    "posttrain.sets=[distilled, random_real, hard_labels]",
    "posttrain.validation_shard=2",
)
OVERRIDES = {"flat": SIZES, "rounds": SIZES + ROUNDS}
SHARDS = {  # done, by stage; a run without shards in a stage does not list it
    "flat": {"ingest": 1, "squeeze": 1, "recover": 6, "relabel": 12, "posttrain": 3},
    "rounds": {
        **{"ingest": 1, "squeeze": 1, "statistics": 1},
        **{"select-1": 1, "recover-1": 1, "relabel-1": 2, "posttrain-1": 1},
        **{"select": 1, "recover": 6, "relabel": 12, "posttrain": 3, "validate": 6},
    },
}


@pytest.fixture(params=sorted(OVERRIDES))
def run(request: pytest.FixtureRequest, store: Store) -> Run:
    """Return one of the two runs."""
    return open_run(store, request.param)


def files(store: Store) -> dict[str, tuple[int, bytes]]:
    """Return the time of the last change and the content of every file, by path."""
    root = Path(store.url)
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }


def listed_keys(run: Run, stage: StageId) -> dict[StageId, list[str]]:
    """Return the keys that the manifests of a stage list, by manifest."""
    found = manifests(run, stage)
    return {name: [entry.key for entry in manifest.entries] for name, manifest in found.items()}


def planned_keys(run: Run, stage: StageId) -> dict[StageId, list[str]]:
    """Return the keys that the planner computes for a stage, by manifest."""
    return {name: [job.key for job in jobs] for name, jobs in JobPlan(run).jobs(stage).items()}


def stages_with_shards(run: Run) -> list[StageId]:
    """Return the stages that have manifests."""
    return [stage for stage in stages_of(run.config) if manifests_of(run, stage)]


def test_the_same_command_is_the_same_run(run: Run) -> None:
    config = load_run("rehearsal-21k", OVERRIDES[run.name])
    assert create_run(config, run.store, run.name).config == run.config


def test_every_stage_is_complete(run: Run) -> None:
    status = run_status(run)
    assert {str(stage.stage): stage.done for stage in status.stages} == SHARDS[run.name]
    assert all(stage.complete and stage.total == stage.done for stage in status.stages)


def test_running_every_stage_again_runs_no_job_and_changes_no_file(run: Run) -> None:
    before = files(run.store)
    assert execute(run).ran == []
    assert files(run.store) == before


def test_the_planned_keys_are_those_of_the_manifests(run: Run) -> None:
    stages = stages_with_shards(run)
    planned = {stage: planned_keys(run, stage) for stage in stages}
    assert planned == {stage: listed_keys(run, stage) for stage in stages}
    counts = {str(stage): sum(map(len, keys.values())) for stage, keys in planned.items()}
    assert counts | {"ingest": 1} == SHARDS[run.name]


@pytest.mark.parametrize("number", [0, 1])
def test_a_deleted_manifest_is_written_again_from_the_markers(run: Run, number: int) -> None:
    """Of every stage one manifest goes: the first, then the last where a stage writes two."""
    names = [manifests_of(run, stage)[-number] for stage in stages_with_shards(run)]
    before = contents(run.store)
    for name in names:
        run.store.delete(manifest_path(run.name, str(name)))
    assert execute(run).ran == []
    assert contents(run.store) == before


def contents(store: Store) -> dict[str, bytes | Manifest]:
    """Return every file; of manifests the part that does not depend on the version."""
    found: dict[str, bytes | Manifest] = {}
    for path, (_, data) in files(store).items():
        found[path] = data
        if path.endswith(".manifest.json"):
            found[path] = replace(Manifest.from_json(data), numerics=None, built_on=None)
    return found


def test_the_dataset_is_the_same_when_it_is_ingested_again(run: Run) -> None:
    path = run.path("ingest.json")
    before = json.loads(run.store.read(path))
    run.store.delete(path)
    execute(run, "ingest")
    after = json.loads(run.store.read(path))
    assert {name: after[name] for name in before} == before


def test_every_file_is_what_its_manifest_states(run: Run) -> None:
    verdict = verify_run(run)
    assert (verdict.damage, verdict.missing) == ((), ())
    assert verdict.files > 0


@pytest.mark.parametrize("kind", sorted(NUMERICS))
def test_shards_are_missing_if_the_keys_of_a_stage_change(
    store: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its manifests, a stage whose numerics changed has no shard done in the old store."""
    run = open_run(store, "rounds")
    names = [name for stage in stages_with_shards(run) for name in manifests_of(run, stage)]
    for name in (name for name in names if name.kind == kind):
        run.store.delete(manifest_path(run.name, str(name)))
    monkeypatch.setitem(NUMERICS, kind, NUMERICS[kind] + 1)  # type: ignore[arg-type]
    stage = next(stage for stage in stages_with_shards(run) if stage.kind == kind)
    status = stage_status(run, stage)
    assert (status.complete, status.done) == (False, 0)
    assert len(status.pending) == SHARDS["rounds"][str(stage)]
