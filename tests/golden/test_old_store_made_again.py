"""Shards of a store of version 0.1.0 that are made again: what follows from their content.

Keys of that version contain the keys of what a shard was made from, and not the content. They stay
valid as long as the content is what it was; see `distill_core.storage.markers.Marker`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from flows.status.status import run_status
from tasks.run import Run, open_run
from tasks.runs.finalise import close_stage
from tasks.runs.stage_status import stage_status
from tasks.stages.inputs import NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.table import stages_of
from tests.support.pipeline import execute
from tests.support.remade import make_again, make_images_again

# Manifest of the shard that is made again; the suffix of the file that changes; the stages whose
# plans follow: they read that file, or a stage that is not complete any more.
FOLLOWING = (
    ("statistics", "safetensors", {"recover-1", "recover"}),
    ("select-1", "parquet", {"select", "recover-1", "recover"}),
    ("recover-1", "parquet", {"relabel-1", "posttrain-1", "relabel", "posttrain", "validate"}),
    ("relabel-1", "parquet", {"posttrain-1", "posttrain", "validate"}),
    ("posttrain-1", "safetensors", {"select", "recover"}),
    ("posttrain", "safetensors", {"validate"}),
    ("posttrain", "ema.safetensors", {"validate"}),
)


def planned(run: Run) -> dict[str, list[str]]:
    """Return the keys of every stage, by name; none where a stage before it is not complete."""
    plan, found = JobPlan(run), {}
    for stage in stages_of(run.config)[1:]:
        found[str(stage)] = []
        with suppress(NotReady):
            jobs = [job for part in plan.jobs(stage).values() for job in part]
            found[str(stage)] = [job.key for job in jobs]
    return found


def shard_of(run: Run, stage: str) -> tuple[str, str]:
    """Return the kind and the key of the first shard of a stage."""
    parsed = StageId.parse(stage)
    return parsed.kind, JobPlan(run).recorded(parsed).entries[0].key


@pytest.mark.parametrize(("stage", "suffix", "following"), FOLLOWING)
def test_what_reads_a_shard_gets_other_keys_if_its_content_changes(
    store: Store,
    stage: str,
    suffix: str,
    following: set[str],
) -> None:
    run = open_run(store, "rounds")
    before, (kind, key) = planned(run), shard_of(run, stage)
    make_again(store, kind, key, {suffix: b"other bytes"})
    after = planned(run)
    assert {name for name in before if before[name] != after[name]} == following
    assert after[stage] == before[stage]  # its own key does not contain its content
    assert not stage_status(run, StageId.parse(stage)).complete  # until its manifest is rewritten


def test_what_reads_a_shard_keeps_its_keys_if_its_content_is_the_same(
    store: Store,
) -> None:
    run = open_run(store, "rounds")
    before = planned(run)
    for stage in ("statistics", "select-1", "recover-1", "relabel-1", "posttrain-1", "posttrain"):
        make_again(store, *shard_of(run, stage), {})
    assert planned(run) == before
    assert run_status(run).complete
    for stage in stages_of(run.config)[1:]:  # also when manifests are written again
        close_stage(run, stage, JobPlan(run).jobs(stage), allow_missing=0)
    assert planned(run) == before
    assert run_status(run).complete
    assert verify_run(run).damage == ()


def test_a_manifest_that_is_written_again_keeps_the_keys_of_later_stages(
    store: Store,
) -> None:
    """Images are made again with other bytes: the new content stays in the keys of their labels."""
    run, stage = open_run(store, "flat"), StageId("recover")
    before = planned(run)
    make_images_again(store, shard_of(run, "recover")[1])
    after = planned(run)
    assert sum(a != b for a, b in zip(after["relabel"], before["relabel"], strict=True)) == 2
    assert after["posttrain"] != before["posttrain"]
    close_stage(run, stage, JobPlan(run).jobs(stage), allow_missing=0)
    assert planned(run) == after
    assert stage_status(run, stage).complete


def test_labels_that_an_old_version_made_before_their_images_are_reported(
    store: Store,
) -> None:
    """The images were made again by a version that kept their labels: only the times show it."""
    run = open_run(store, "flat")
    kind, key = shard_of(run, "recover")
    marker = make_again(store, kind, key, {})
    of_old_version = replace(marker, keyed_by_content=False, made_with={})
    store.put(ShardStore(store, kind).marker_path(key), of_old_version.to_json())
    damage = verify_run(run).damage
    assert len(damage) == 2  # two ranges of views
    assert all(marker.finished in each.problem for each in damage)
    assert {each.path.partition("/")[0] for each in damage} == {"relabel"}


def test_a_resume_makes_what_follows_from_other_images_and_completes_the_run(store: Store) -> None:
    run = open_run(store, "rounds")
    make_images_again(store, shard_of(run, "recover-1")[1])
    incomplete = [str(each.stage) for each in run_status(run).stages if not each.complete]
    assert incomplete[0] == "recover-1"
    ran = execute(run).ran
    assert {stage for stage, _ in ran} >= {"relabel-1", "posttrain-1", "posttrain", "validate"}
    assert run_status(run).complete
    assert verify_run(run).damage == ()
    assert execute(run).ran == []
