"""The validate stage: sharded, resumable, and exactly equal to an evaluation of the whole split."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from distill_core.evaluation import blocks
from distill_core.evaluation.accuracy import total
from distill_core.evaluation.validate import decode_counts
from distill_core.storage.shard_store import ShardStore
from flows.reports import report_data
from tasks.run import Run
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tasks.stages.table import STAGES
from tests.support.hits import add_up
from tests.support.pipeline import execute, manifest, tiny_run

SETS = ("posttrain.sets=[distilled, hard_labels]",)
SHARDED = (*SETS, "posttrain.validation_shard=100")  # of 360 test images: four shards per student


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose students are judged by their own training."""
    run = tiny_run(tmp_path_factory.mktemp("validation"), *SETS)
    execute(run)
    return run


@pytest.fixture(scope="module")
def sharded(whole: Run) -> Run:
    """Return a run of the same students, judged in shards."""
    run = tiny_run(Path(whole.store.url), *SHARDED)
    assert {stage for stage, _ in execute(run).ran} == {"validate"}
    return run


def copied(run: Run, folder: Path, *, without: str) -> Run:
    """Return the run with validation shards in a copy of a store, but for some of its folders."""
    shutil.copytree(run.store.url, folder, ignore=shutil.ignore_patterns(without))
    return tiny_run(folder, *SHARDED)


def test_a_split_of_one_shard_is_evaluated_in_training_and_needs_no_validate_stage(
    whole: Run,
) -> None:
    status = stage_status(whole, StageId("validate"))
    assert (status.total, status.complete) == (0, True)
    assert not whole.store.exists(whole.path("validate.manifest.json"))


def test_sharded_accuracies_are_those_of_the_whole_split_to_the_last_digit(
    whole: Run, sharded: Run
) -> None:
    entries = manifest(sharded, "validate").entries
    assert [entry.rows for entry in entries] == [100, 100, 100, 60] * 2
    assert [(r["last"], r["ema"]) for r in report_data.gather(sharded).results] == [
        (r["last"], r["ema"]) for r in report_data.gather(whole).results
    ]
    assert all(result["validated"] == 360 for result in report_data.gather(sharded).results)


def test_the_files_of_a_student_add_up_to_its_accuracy_by_class(whole: Run, sharded: Run) -> None:
    shard_store = ShardStore(sharded.store, "validate")
    markers = report_data.gather(sharded).markers[StageId("validate")]
    blocks = [decode_counts(shard_store.load(marker, "json")) for marker in markers[:4]]
    student = report_data.gather(whole).results[0]
    for which in ("last", "ema"):
        counted = add_up(block[which] for block in blocks)
        assert total(counted).accuracy.to_dict() == student[which]
        assert (total(counted).images, sorted(counted)) == (360, list(range(10)))


def test_a_deleted_marker_makes_exactly_that_block_again(sharded: Run, tmp_path: Path) -> None:
    shutil.copytree(sharded.store.url, tmp_path / "copy")
    run = tiny_run(tmp_path / "copy", *SHARDED)
    lost = manifest(run, "validate").entries[5]
    run.store.delete(ShardStore(run.store, "validate").marker_path(lost.key))
    assert execute(run).ran == [("validate", lost.shard)]
    assert manifest(run, "validate") == manifest(sharded, "validate")


def test_three_workers_write_the_manifest_of_one(sharded: Run, tmp_path: Path) -> None:
    run = copied(sharded, tmp_path / "copy", without="validate*")
    recorder = execute(run, "validate", workers=3)
    assert len(recorder.ran) == 8
    assert manifest(run, "validate") == manifest(sharded, "validate")


def test_training_names_the_images_it_evaluated_and_the_validate_stage_replaces_its_accuracy(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "IN_TRAINING", 50)
    run = copied(whole, tmp_path / "copy", without="runs")
    ran = execute(run, *list(STAGES)[:-1]).ran
    assert sum(stage == "posttrain" for stage, _ in ran) == 2  # on another part: another key
    before = report_data.gather(run)
    said = {"images": 50, "of": 360, "rows": "evenly spaced"}
    assert all(result["judged_on"] == said for result in before.results)
    assert "not yet validated are measured on 50 evenly spaced images of 360" in before.note

    execute(run, "validate")
    after, reference = report_data.gather(run), report_data.gather(whole)
    assert [r["last"] for r in after.results] == [r["last"] for r in reference.results]
    assert [r["best"] for r in after.results] == [r["best"] for r in before.results]
    assert "`best-on-test` is measured on 50 evenly spaced images of 360" in after.note
