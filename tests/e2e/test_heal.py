"""A deleted marker makes its shard again, and what was made from it if its bytes are others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load, save

from distill_core.environment import made_with
from distill_core.errors import ShardError
from distill_core.storage.shard_store import ShardStore
from flows.maintenance.verify import verify_run
from flows.status.status import run_status
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.posttrain import PosttrainWorker
from tasks.stages.recover import RecoverWorker
from tasks.stages.relabel import RelabelWorker
from tests.support.pipeline import execute, manifest, tiny_run
from tests.support.remade import make_again, make_images_again

SHORT = ("recover.steps=1", "posttrain.epochs=1", "posttrain.evaluate_every=1")


def test_a_deleted_marker_makes_exactly_its_shard_again(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, *SHORT)
    execute(run)
    before = manifest(run, "recover")
    assert before.made_with == (made_with("cpu"),)
    lost = before.entries[1]
    run.store.delete(ShardStore(run.store, "recover").marker_path(lost.key))
    status = stage_status(run, StageId("recover"))
    assert (status.complete, status.total, status.done) == (False, 4, 3)
    assert execute(run).ran == [("recover", lost.shard)]
    assert manifest(run, "recover") == before
    assert stage_status(run, StageId("recover")).complete


def test_a_deleted_index_is_made_again(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, *SHORT)
    execute(run)
    shutil.rmtree(tmp_path / "datasets")
    assert not stage_status(run, StageId("ingest")).complete
    assert execute(run).ran == []  # merged from the parts, which are there
    assert run_status(run).complete
    assert not verify_run(run).damage


def test_images_made_again_with_other_bytes_get_labels_and_students_of_their_own(
    tmp_path: Path,
) -> None:
    """The marker is deleted as messages advise, and another device makes the shard again."""
    run = tiny_run(tmp_path, *SHORT)
    execute(run)
    before, labels = manifest(run, "recover"), manifest(run, "relabel")
    lost = before.entries[0]
    remade = make_images_again(run.store, lost.key)
    status = {str(stage.stage): stage for stage in run_status(run).stages}
    assert not status["recover"].complete  # its manifest lists the files of the deleted marker
    of_lost = [entry.shard for entry in labels.entries if entry.shard.startswith(lost.shard)]
    assert list(status["relabel"].pending) == of_lost
    ran = execute(run).ran
    assert sorted(shard for stage, shard in ran if stage == "relabel") == of_lost
    students = {shard for stage, shard in ran if stage == "posttrain"}
    assert {s for s in students if "random_real" not in s} == students != set()
    assert len(ran) == len(of_lost) + len(students)  # and no image
    assert manifest(run, "recover").entries[0].sha256("parquet") == remade.file("parquet").sha256
    assert run_status(run).complete
    assert not verify_run(run).damage
    assert execute(run).ran == []


def test_images_made_again_while_their_labels_are_made_are_not_labelled_under_the_old_key(
    tmp_path: Path,
) -> None:
    run = tiny_run(tmp_path, *SHORT)
    execute(run, "ingest", "squeeze", "recover")
    job = JobPlan(run).jobs(StageId("relabel"))[StageId("relabel")][0]
    make_images_again(run.store, manifest(run, "recover").entries[0].key)
    context = {"run": run.config.model_dump_json(), "name": run.name, "store": run.store.url}
    with pytest.raises(ShardError, match="made again with other bytes after this job was planned"):
        RelabelWorker(**context, device="cpu").run(job)
    assert ShardStore(run.store, "relabel").marker(job.key) is None


def test_a_worker_refuses_a_teacher_that_was_made_again(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, *SHORT)
    execute(run, "ingest", "squeeze")
    plan, shard_store = JobPlan(run), ShardStore(run.store, "squeeze")
    job, (teacher,) = plan.jobs(StageId("recover"))[StageId("recover")][0], plan.teachers
    context = {"run": run.config.model_dump_json(), "name": run.name, "store": run.store.url}
    planned = {"teachers": plan.digests([0])}
    weights = load(shard_store.load(teacher, "safetensors"))
    weights[min(weights)] += 1
    files = {"safetensors": save(weights), "json": shard_store.load(teacher, "json")}
    make_again(run.store, "squeeze", teacher.key, files)
    worker = RecoverWorker(**context, device="cpu", planned=planned)
    with pytest.raises(ShardError, match=r"teacher .* was made again with other bytes after"):
        worker.run(job)
    assert ShardStore(run.store, "recover").marker(job.key) is None


def test_a_student_refuses_labels_of_other_images(tmp_path: Path) -> None:
    """The labels of one image shard stand under the key of another one's."""
    run = tiny_run(tmp_path, *SHORT)
    execute(run, "ingest", "squeeze", "recover", "relabel")
    shard_store, entries = ShardStore(run.store, "relabel"), manifest(run, "relabel").entries
    theirs = next(entry for entry in entries if entry.shard[:17] != entries[0].shard[:17])
    marker = shard_store.marker(theirs.key)
    assert marker is not None
    foreign = {"parquet": shard_store.load(marker, "parquet")}
    make_again(run.store, "relabel", entries[0].key, foreign)
    job = JobPlan(run).jobs(StageId("posttrain"))[StageId("posttrain")][0]
    context = {"run": run.config.model_dump_json(), "name": run.name, "store": run.store.url}
    with pytest.raises(ShardError, match=r"describes images with sha256 .* Delete the marker"):
        PosttrainWorker(**context, device="cpu").run(job)
