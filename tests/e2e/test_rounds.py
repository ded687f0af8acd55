"""Images made in rounds with a student between them, in ordinary stages, shards and markers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from distill_core.data.real_images import RealImages
from distill_core.selection.select import ClassSelection, decode_selection
from distill_core.storage.image_shards import decode_images
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.estimate import workload
from flows.maintenance.verify import verify_run
from flows.reports.report_data import costs, gather, header
from flows.runs import pipeline, shard_selection
from flows.status.status import run_status
from tasks.execution import Execution
from tasks.gc.kind_files import Garbage
from tasks.gc.unreferenced import find_garbage
from tasks.jobs import Job, Receipt
from tasks.pools.provider import PoolProvider
from tasks.run import Run, open_run
from tasks.runs.run_stage import run_stage
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan, manifests_of
from tasks.stages.recover import RecoverWorker
from tasks.stages.table import stages_of
from tests.support.pipeline import Recorder, execute, manifest, same_teacher, tiny_run

# Three rounds of one, two and one images per class; a shard is one image per class.
ROUNDS = (
    "ipc=4",
    "recover.init=judged",
    "recover.terms={cross_entropy: 1, bn_statistics: 0.01, start_distance: 1, adversarial: 1}",
    "rounds={starts: [1, 3], student: {name: resnet18_small, width: 4}, epochs: 2, warm_lr: 5e-4}",
    "posttrain.sets=[distilled, random_real]",
)
KILLED_AFTER = "recover-2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a complete run that nothing happened to."""
    run = tiny_run(tmp_path_factory.mktemp("whole"), *ROUNDS)
    execute(run)
    return run


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    """Return a copy of the complete run that a test may damage."""
    shutil.copytree(whole.store.url, tmp_path / "copy")
    return open_run(Store(str(tmp_path / "copy")), whole.name)


def made(recorder: Recorder) -> list[tuple[str, str]]:
    """Return what ran, without the order in which drivers take shards."""
    return sorted(recorder.ran)


def names(run: Run) -> list[str]:
    """Return the manifests that a run has."""
    return [str(n) for stage in stages_of(run.config) for n in manifests_of(run, stage)]


def stamps(run: Run) -> dict[Path, int]:
    """Return when each file of a store was written."""
    return {p: p.stat().st_mtime_ns for p in Path(run.store.url).rglob("*") if p.is_file()}


def images_of(run: Run, name: str) -> dict[tuple[str, int], np.ndarray]:
    """Return the pixels of every image of a manifest."""
    shard_store, found = ShardStore(run.store, "recover"), {}
    for entry in manifest(run, name).entries:
        marker = shard_store.marker(entry.key)
        assert marker is not None
        rows = decode_images(shard_store.load(marker, "parquet"))
        found |= {(i.wnid, i.ipc_index): p for i, p in zip(rows.images, rows.pixels, strict=True)}
    return found


def selected(run: Run, stage: str) -> dict[str, ClassSelection]:
    """Return what the one block of classes starts from."""
    shard_store, (entry,) = ShardStore(run.store, "select"), manifest(run, stage).entries
    marker = shard_store.marker(entry.key)
    assert marker is not None
    return decode_selection(shard_store.load(marker, "parquet"))


def same_results(one: Run, other: Run) -> None:
    """Hold every manifest of two runs against each other."""
    for name in names(other):
        assert manifest(one, name) == manifest(other, name), name


def test_the_result_is_the_union_of_all_rounds_and_a_second_run_writes_nothing(whole: Run) -> None:
    assert run_status(whole).complete
    entries = {
        name: manifest(whole, name).entries for name in ("recover-1", "recover-2", "recover")
    }
    assert [len(part) for part in entries.values()] == [1, 3, 4]
    assert entries["recover"][:3] == entries["recover-2"]
    assert entries["recover-2"][:1] == entries["recover-1"]
    assert {index for _, index in images_of(whole, "recover")} == {0, 1, 2, 3}
    before = stamps(whole)
    assert execute(whole).ran == []
    assert stamps(whole) == before


def test_no_image_is_started_from_twice(whole: Run) -> None:
    used: dict[str, list[int]] = {}
    for stage, count, total in (("select-1", 1, 1), ("select-2", 2, 3), ("select", 1, 4)):
        for wnid, chosen in selected(whole, stage).items():
            assert chosen.used.tolist() == used.get(wnid, [])
            used[wnid] = chosen.used_after(count).tolist()
            assert len(set(used[wnid])) == len(used[wnid]) == total


def test_planned_counts_equal_the_results_and_every_file_verifies(whole: Run) -> None:
    planned = workload.shards_by_stage(whole.config, test_images=0)
    assert {str(s.stage): s.total for s in run_status(whole).stages}.items() <= planned.items()
    verdict = verify_run(whole)
    assert not verdict.damage
    assert not verdict.missing
    keys = {
        (StageId.parse(n).kind, entry.key)
        for n in ("ingest", *names(whole))
        for entry in manifest(whole, n).entries
    }
    assert verdict.shards == len(keys)


def test_shard_numbers_select_only_the_stages_that_have_such_shards(whole: Run) -> None:
    only = shard_selection.by_number(whole, "3")
    assert {stage for stage, shards in only.items() if shards} == {"recover", "relabel"}
    assert set(only) == {"recover", "relabel", "posttrain", "validate"}
    assert only["recover"] == ["c00000-00009_i003-003", "c00000-00009_i003-003_random_real"]
    only = shard_selection.by_number(whole, "0")
    assert only["recover-1"] == ["c00000-00009_i000-000", "c00000-00009_i000-000_random_real"]
    stages = [str(stage) for stage in stages_of(whole.config)]
    after = stages[stages.index("relabel-1") + 1 :]
    assert {stage for stage, shards in only.items() if not shards} == {*after}
    with_later = shard_selection.by_number(whole, "0", and_later=True)
    assert set(with_later) >= {"recover-1", "relabel-1", "recover"}
    assert all(with_later.values())


def test_the_report_shows_the_accuracy_of_the_students_between_rounds(whole: Run) -> None:
    facts = gather(whole)
    said = dict(header(facts))["students between rounds"]
    assert said.count("%") == 2
    shards = {name: int(count) for name, count, *_ in costs(facts)}
    assert (shards["recover-1"], shards["recover-2"], shards["recover"]) == (1, 2, 1)


def garbage(run: Run) -> tuple[Garbage, ...]:
    """Return what a collection would remove if it were old enough; nothing may be foreign."""
    found = find_garbage(run.store, datetime.now(UTC))
    assert found.foreign == ()
    return found.garbage


def test_objects_needed_by_any_round_are_not_garbage(run: Run) -> None:
    assert garbage(run) == ()
    run.store.delete(run.path("recover.manifest.json"))
    run.store.delete(run.path("recover-2.manifest.json"))
    assert garbage(run) == ()  # manifests and plans of other rounds name the rest
    for file in run.store.files(run.path()):
        run.store.delete(file.path)
    shelves = {item.path.partition("/")[0] for item in garbage(run)}
    assert {"select", "recover", "relabel", "posttrain"} <= shelves


def test_a_lost_shard_of_a_middle_round_is_made_again_and_nothing_else(
    run: Run, whole: Run
) -> None:
    lost = manifest(run, "recover-2").entries[1]
    marker = ShardStore(run.store, "recover").marker_path(lost.key)
    run.store.delete(marker)
    (intent, *_) = shard_selection.intents(run, run_status(run), {})
    assert (intent.stage, intent.shards) == ("recover-2", (lost.shard,))
    assert execute(run).ran == [("recover-2", lost.shard)]
    same_results(run, whole)


@pytest.mark.slow
def test_after_a_kill_in_a_middle_round_only_what_is_missing_is_made(
    whole: Run, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path, *ROUNDS)
    command = [sys.executable, "-m", "tests.e2e.test_rounds", run.store.url, run.name]
    assert subprocess.run(command, timeout=300, check=False).returncode == -signal.SIGKILL
    survivors = {path for path in stamps(run) if "_done" in path.parts}
    before = {path: path.stat().st_mtime_ns for path in survivors}
    missing = run_status(run).first_missing
    assert missing is not None
    assert str(missing.stage) == KILLED_AFTER

    again = made(execute(run))
    assert [stage for stage, _ in again][:1] == ["posttrain"]
    assert (
        len([stage for stage, _ in again if stage == KILLED_AFTER]) == 1
    )  # the other one was done
    assert not {"ingest", "squeeze", "select-1", "recover-1", "posttrain-1", "select-2"} & {
        stage for stage, _ in again
    }
    assert {path: path.stat().st_mtime_ns for path in survivors} == before
    same_results(run, whole)


@pytest.mark.slow
def test_more_images_per_class_extend_the_rounds_there_are(whole: Run, tmp_path: Path) -> None:
    first = tiny_run(tmp_path, *ROUNDS, "ipc=3")
    execute(first)
    assert manifest(first, "recover").entries == manifest(whole, "recover-2").entries
    more = tiny_run(tmp_path, *ROUNDS)
    ran = made(execute(more, *map(str, stages_of(more.config)[:-2])))
    fresh = [shard for stage, shard in ran if stage == "recover" and "random" not in shard]
    assert fresh == ["c00000-00009_i003-003"]
    assert not [stage for stage, _ in ran if stage in ("recover-1", "recover-2", "posttrain-1")]
    assert manifest(more, "recover") == manifest(whole, "recover")


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_the_results_of_rounds(
    whole: Run, tmp_path: Path
) -> None:
    run = same_teacher(whole, tmp_path, *ROUNDS)
    execute(run, workers=3)
    same_results(run, whole)


def test_one_round_starts_from_images_that_the_teacher_gets_right(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "recover.init=judged", "recover.candidates=20", "recover.steps=0")
    execute(run, "ingest", "squeeze", "select", "recover")
    for chosen in selected(run, "select").values():
        assert chosen.counts["other"] == 0  # nothing is known to a student that is not there
        assert sum(chosen.counts.values()) == 20
    made, index = images_of(run, "recover"), JobPlan(run).index
    real = RealImages(run.config.data, index, "train")
    for label, wnid in enumerate(index.class_names):
        first_two = index.rows_of("train", label)[selected(run, "select")[wnid].order[:2]]
        assert np.array_equal([made[wnid, 0], made[wnid, 1]], real.pixels(first_two))


@pytest.mark.slow
def test_a_shard_that_an_early_round_gave_up_stays_out_of_later_ones(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    work, poison = RecoverWorker.run, "c00000-00009_i001-001"

    def poisoned(worker: RecoverWorker, job: Job) -> Receipt:
        tried.append(job.shard)
        if job.shard == poison:
            raise ValueError("poisoned")
        return work(worker, job)

    monkeypatch.setattr(RecoverWorker, "run", poisoned)
    run = tiny_run(tmp_path, *ROUNDS, "posttrain.sets=[distilled]")
    how = Execution(store=run.store.url, local=True, max_attempts=1, allow_missing=1)
    reached = pipeline.complete_run(run, how)
    assert reached.has_manifest
    assert reached.nothing_to_do(1)
    assert tried.count(poison) == 1  # later rounds left it alone
    assert manifest(run, "recover").missing == (poison,)
    assert {index for _, index in images_of(run, "recover")} == {0, 2, 3}

    monkeypatch.setattr(RecoverWorker, "run", work)
    better = pipeline.complete_run(run, how.model_copy(update={"allow_missing": 0}))
    assert better.complete
    assert manifest(run, "recover") == manifest(whole, "recover")


class Killer(Recorder):
    """Kills this process when the first shard of a stage is committed."""

    def job_finished(self, stage: str, receipt: object) -> None:
        """Die, if it is the one."""
        if stage == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_middle_round(run: Run) -> None:
    """Run stage by stage, and do not survive."""
    execution = Execution(store=run.store.url, local=True)
    with PoolProvider(execution) as pools:
        for stage in stages_of(run.config):
            run_stage(run, stage, execution=execution, observer=Killer(), pools=pools)


if __name__ == "__main__":
    die_in_a_middle_round(open_run(Store(sys.argv[1]), sys.argv[2]))
