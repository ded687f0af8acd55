"""Failing shards: later stages continue without an allowed number, results name them, and a later
pass that makes them completes the run.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.errors import ShardsFailed
from distill_core.storage.manifest import load_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows import cli
from flows.reports.report_data import gather
from flows.runs import pipeline
from flows.runs.shard_selection import failed_only_of, intents
from flows.status import status
from tasks.execution import Execution
from tasks.jobs import Job, Receipt
from tasks.run import Run, create_run
from tasks.stages.recover import RecoverWorker
from tasks.stages.relabel import RelabelWorker
from tasks.stages.squeeze import SqueezeWorker
from tasks.stages.statistics import StatisticsWorker
from tests.support.pipeline import manifest

TWO_BLOCKS = (
    "data.num_classes=120",
    "squeeze.model.width=8",
    "squeeze.training.epochs=1",
    "squeeze.training.threads=1",
    "recover.steps=2",
    "relabel.views=2",
    "relabel.views_per_shard=1",
    "posttrain.students=[{name: convnet3, width: 8}]",
    "posttrain.epochs=1",
    "posttrain.evaluate_every=1",
    'posttrain.sets=["distilled", "random_real", "hard_labels"]',
)
POISON = "c00100-00119_i000-000"  # of the distilled set; the other block is c00000-00099
LABEL_POISON = "c00000-00099_i000-000_v0001-0001"


class Poison:
    """Makes workers fail on shards until it is taken away."""

    def __init__(self) -> None:
        self.shards: set[str] = set()
        self.tried: list[str] = []

    def spoil(self, worker: type, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put itself before a worker's `run`."""
        run = worker.run  # type: ignore[attr-defined]

        def poisoned(context: object, job: Job) -> Receipt:
            self.tried.append(job.shard)
            if job.shard in self.shards:
                raise ValueError(f"{job.shard} is poisoned")
            receipt: Receipt = run(context, job)
            return receipt

        monkeypatch.setattr(worker, "run", poisoned)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poison:
    """Return poison that reaches class statistics, images and labels."""
    poison = Poison()
    for worker in (StatisticsWorker, RecoverWorker, RelabelWorker):
        poison.spoil(worker, monkeypatch)
    return poison


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the run that nothing happened to."""
    run = a_run(tmp_path_factory.mktemp("clean"))
    pipeline.complete_run(run, how(run))
    return run


@pytest.fixture
def run(clean: Run, tmp_path: Path) -> Iterator[Run]:
    """Return the same run, its teacher made, its images not."""
    run = a_run(tmp_path)
    for part in ("datasets", "squeeze"):
        shutil.copytree(Path(clean.store.url, part), tmp_path / part)
    for name in ("ingest.json", "squeeze.manifest.json"):
        run.store.put(run.path(name), clean.store.read(clean.path(name)))
    return run


def a_run(folder: Path, *overrides: str) -> Run:
    """Register the run of two blocks of classes in a folder."""
    config = load_run("rehearsal-21k", (*TWO_BLOCKS, *overrides))
    return create_run(config, Store(str(folder)), "poisoned")


def how(run: Run, allow_missing: int = 0) -> Execution:
    """Return one worker in this process, so that the poison reaches it."""
    return Execution(store=run.store.url, local=True, max_attempts=2, allow_missing=allow_missing)


def students(run: Run) -> dict[str, dict[str, object]]:
    """Return the result record of each student, by set."""
    shard_store = ShardStore(run.store, "posttrain")
    markers = shard_store.markers([entry.key for entry in manifest(run, "posttrain").entries])
    records = [json.loads(shard_store.load(m, "result.json")) for m in markers if m is not None]
    return {record["set"]: record for record in records}


def test_by_default_a_failing_shard_ends_the_run_after_the_others_are_done(
    run: Run, poison: Poison
) -> None:
    poison.shards = {POISON}
    with pytest.raises(ShardsFailed, match=rf"1 of the recover shards failed: {POISON}.*--allow-m"):
        pipeline.complete_run(run, how(run))
    assert load_manifest(run.store, run.name, "recover") is None
    recover = status.run_status(run).stages[2]
    assert (recover.done, recover.pending, list(recover.failed)) == (3, (POISON,), [POISON])
    assert not any("_v" in shard for shard in poison.tried)


def test_one_missing_shard_is_allowed_and_named_in_every_result(
    run: Run, clean: Run, poison: Poison
) -> None:
    poison.shards = {POISON}
    reached = pipeline.complete_run(run, how(run, 1))
    assert (reached.complete, reached.has_manifest, reached.missing) == (False, True, (POISON,))
    for name in ("recover", "relabel", "posttrain"):
        assert manifest(run, name).missing == (POISON,), name
    for name in ("recover.random_real", "relabel.random_real"):
        assert manifest(run, name) == manifest(clean, name)
    left = manifest(clean, "recover").entries[:1]
    assert manifest(run, "recover").entries == left
    records = students(run)
    assert {name: record["images"] for name, record in records.items()} == {
        "distilled": 100,
        "random_real": 120,
        "hard_labels": 100,
    }
    assert {name: record["missing"] for name, record in records.items()} == {
        "distilled": [POISON],
        "random_real": [],
        "hard_labels": [POISON],
    }
    words = f"1 shard that failed: {POISON}"
    found = gather(run)
    assert words in run.store.read(found.report).decode()
    assert [cells[1].endswith("; without 1 shard") for cells in found.cells[1:]] == [
        True,
        False,
        True,
    ]


def test_allowed_missing_shards_are_not_retried(run: Run, poison: Poison) -> None:
    poison.shards = {POISON}
    pipeline.complete_run(run, how(run, 1))
    poison.tried.clear()
    assert pipeline.complete_run(run, how(run, 2)).missing == (POISON,)
    assert poison.tried == []
    assert intents(run, status.run_status(run), {}, allow_missing=1) == []
    assert intents(run, status.run_status(run), {})[0].shards == (POISON,)


def test_a_later_pass_makes_the_missing_shard_and_the_run_equals_an_undisturbed_one(
    run: Run, clean: Run, poison: Poison
) -> None:
    poison.shards = {POISON}
    pipeline.complete_run(run, how(run, 1))
    with pytest.raises(ShardsFailed):
        pipeline.complete_run(run, how(run))
    assert status.run_status(run).missing == (POISON,), "what was made without it still stands"
    poison.shards, poison.tried = set(), []
    only = failed_only_of(status.run_status(run))
    assert pipeline.complete_run(run, how(run), only).complete
    again = [POISON, f"{POISON}_v0000-0000", f"{POISON}_v0001-0001"]
    assert sorted(poison.tried) == again
    for name in ("recover", "recover.random_real", "relabel", "relabel.random_real", "posttrain"):
        assert manifest(run, name) == manifest(clean, name)
        assert manifest(run, name).missing == ()
    assert students(run)["distilled"]["missing"] == []
    assert "that failed" not in run.store.read(gather(run).report).decode()


def test_the_command_line_names_missing_shards(
    run: Run,
    poison: Poison,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poison.shards = {POISON}

    def distill(*words: str) -> tuple[int, str]:
        line = ["distill", "resume", run.name, "--store", run.store.url, "--local", *words]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capsys.readouterr().out

    code, out = distill("--json")
    tree = json.loads(out)
    assert (code, tree["missing"], tree["accuracy"]) == (1, [], None)
    assert list(tree["stages"][2]["failed"]) == [POISON]
    code, out = distill("--allow-missing", "1", "--json")
    tree = json.loads(out)
    assert (code, tree["complete"], tree["missing"]) == (0, False, [POISON])
    assert [row["missing"] for row in tree["accuracy"]] == [[POISON], [], [POISON]]
    code, out = distill("--allow-missing", "1")
    assert (code, f"made without 1 shard that failed: {POISON}" in out) == (0, True)
    code, out = distill("--dry-run", "--json")
    (intent, *later) = json.loads(out)["would_run"]
    assert (intent["stage"], intent["shards"]) == ("recover", [POISON])
    assert [(one["stage"], one["shards"]) for one in later] == [
        ("relabel", None),
        ("posttrain", None),
    ]


def test_more_missing_shards_than_allowed_end_the_run(run: Run, poison: Poison) -> None:
    poison.shards = {POISON, f"{POISON}_random_real"}
    with pytest.raises(ShardsFailed, match="2 of the recover shards failed"):
        pipeline.complete_run(run, how(run, 1))
    assert load_manifest(run.store, run.name, "recover") is None
    assert pipeline.complete_run(run, how(run, 2)).has_manifest


def test_missing_shards_of_earlier_stages_count(run: Run, poison: Poison) -> None:
    poison.shards = {POISON, LABEL_POISON}
    with pytest.raises(ShardsFailed, match="1 of the relabel shards failed"):
        pipeline.complete_run(run, how(run, 1))
    assert manifest(run, "recover").missing == (POISON,)


def test_an_image_shard_without_all_its_labels_is_left_out_of_every_set_of_its_images(
    run: Run, poison: Poison
) -> None:
    poison.shards = {LABEL_POISON}
    reached = pipeline.complete_run(run, how(run, 1))
    assert reached.missing == (LABEL_POISON,)
    assert manifest(run, "recover").missing == ()
    assert len(manifest(run, "relabel").entries) == 3
    assert {name: record["images"] for name, record in students(run).items()} == {
        "distilled": 20,
        "random_real": 120,
        "hard_labels": 20,
    }


def test_classes_without_statistics_are_left_out_where_a_term_reads_them(
    poison: Poison, tmp_path: Path
) -> None:
    term = "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}"
    run = a_run(tmp_path, term, "recover.composition=one_class", "recover.batch_size=10")
    poison.shards = {"c00100-00119"}
    reached = pipeline.complete_run(run, how(run, 1))
    assert reached.missing == ("c00100-00119",)
    assert [entry.shard for entry in manifest(run, "recover").entries] == ["c00000-00099_i000-000"]
    assert manifest(run, "recover.random_real").missing == ()
    assert students(run)["distilled"]["missing"] == ["c00100-00119"]


def test_no_teacher_of_several_may_be_missing(
    poison: Poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, "squeeze.pool=[{model: {name: convnet3, width: 4}}]")
    poison.spoil(SqueezeWorker, monkeypatch)
    poison.shards = {"convnet3-w4_t1"}
    with pytest.raises(ShardsFailed, match="1 of the squeeze shards failed: convnet3-w4_t1"):
        pipeline.complete_run(run, how(run, 9))
    assert load_manifest(run.store, run.name, "squeeze") is None


def test_a_stage_may_not_miss_all_of_its_shards(run: Run, poison: Poison) -> None:
    poison.shards = {POISON, "c00000-00099_i000-000"}
    with pytest.raises(ShardsFailed):
        pipeline.complete_run(run, how(run, 9))
    assert load_manifest(run.store, run.name, "recover") is None
