"""Versions of a series: first, unchanged, interrupted, resumed, collected."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.data.index_files import load_index
from distill_core.errors import DataError
from flows.reports.diff import write_diff
from flows.runs import pipeline
from flows.runs.redistill import Outcome, redistill
from flows.status.status import every_run
from tasks.execution import Execution
from tasks.gc.collect import collect
from tasks.jobs import Job, Receipt
from tasks.run import open_run
from tasks.series import version_of
from tasks.stages.inputs import dataset_of
from tasks.stages.recover import RecoverWorker
from tests.support.places import objects
from tests.support.series import (
    Series,
    change_class,
    small,
    write_class,
)

REAL = "recover.init=real"


def test_the_first_version_is_a_plain_run(series: Series, root: Path) -> None:
    config = small(root)
    outcome = series(config)
    assert (outcome.run.name, outcome.changed, outcome.diff) == ("small-v0001", True, None)
    assert outcome.run.config == config
    assert version_of(outcome.run) is None
    assert not series.store.exists(outcome.run.path("diff.json"))
    assert series.shards("ingest") == set()  # done before there was a run


def test_nothing_runs_when_nothing_changed(series: Series, root: Path) -> None:
    first = series(small(root)).run
    before = objects(series.store)
    for policy in ("keep", "fine_tune", "squeeze_again"):
        again = series(small(root), policy)
        assert (again.run.name, again.changed, again.diff) == (first.name, False, None)
        assert series.ran == []
    assert objects(series.store) == before


def test_an_incomplete_version_of_the_same_input_is_resumed(series: Series, root: Path) -> None:
    broken = series(small(root, REAL), complete=series.upto("squeeze", "recover"))
    assert (broken.run.name, broken.changed, broken.diff) == ("small-v0001", True, None)
    assert series(small(root, REAL)).run.name == "small-v0001"
    assert {stage for stage, _ in series.ran} == {"relabel", "posttrain"}
    change_class(root, "cat")
    series(small(root, REAL), complete=series.upto("squeeze", "recover"))
    resumed = series(small(root, REAL))
    assert (resumed.run.name, {stage for stage, _ in series.ran}) == (
        "small-v0002",
        {"relabel", "posttrain"},
    )
    assert resumed.diff is not None
    assert resumed.diff.previous == "small-v0001"


def test_an_incomplete_version_of_another_input_is_not_resumed(series: Series, root: Path) -> None:
    first = series(small(root, REAL)).run
    change_class(root, "cat")
    series(small(root, REAL), complete=series.upto("squeeze"))
    change_class(root, "ant")
    outcome = series(small(root, REAL))
    version = version_of(outcome.run)
    assert version is not None
    assert (outcome.run.name, version.previous) == ("small-v0003", first.name)
    series(small(root, REAL), "fine_tune", complete=series.upto("squeeze"))
    assert not series(small(root, REAL)).changed


def test_a_version_with_a_missing_shard_is_current_while_that_is_allowed(
    series: Series, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, run = "c00002-00003_i000-000", RecoverWorker.run

    def poisoned(worker: RecoverWorker, job: Job) -> Receipt:
        if job.shard == poison:
            raise ValueError("poison")
        return run(worker, job)

    def again(allow_missing: int) -> Outcome:
        execution = Execution(
            store=series.store.url, local=True, max_attempts=1, allow_missing=allow_missing
        )
        config = small(root, REAL, "posttrain.sets=[distilled]")
        return redistill(
            config,
            series.store,
            series="s",
            policy="keep",
            execution=execution,
            complete=pipeline.complete_run,
        )

    again(0)
    change_class(root, "cat")
    monkeypatch.setattr(RecoverWorker, "run", poisoned)
    partial = again(1)
    assert partial.diff is not None
    assert (partial.run.name, partial.diff.missing) == ("s-v0002", (poison,))
    assert (again(1).run.name, again(1).changed) == ("s-v0002", False)
    monkeypatch.setattr(RecoverWorker, "run", run)
    whole = again(0)
    assert (whole.run.name, whole.changed) == ("s-v0002", True)
    assert whole.diff is not None
    assert whole.diff.missing == ()
    assert not again(0).changed


def test_a_version_that_was_resumed_by_name_gets_its_diff_later(series: Series, root: Path) -> None:
    series(small(root, REAL))
    change_class(root, "cat")
    run = series(small(root, REAL), complete=series.upto("squeeze")).run
    series.resume(run)
    assert not series.store.exists(run.path("diff.json"))
    assert not series(small(root, REAL)).changed
    assert series.store.exists(run.path("diff.json"))


def test_ids_continue_after_a_version_without_its_dataset(series: Series, root: Path) -> None:
    series(small(root))
    write_class(root, "bat", seed=7)
    run = series(small(root), "fine_tune", complete=series.upto("ingest")).run
    series.store.delete(run.path("ingest.json"))
    series.resume(open_run(series.store, run.name))
    index = load_index(series.store, dataset_of(run))
    assert index.class_names == ("ant", "bee", "cat", "dog", "bat")
    assert series(small(root), "fine_tune").changed is False


def test_a_claimed_but_unregistered_version_is_skipped(series: Series, root: Path) -> None:
    series(small(root, REAL))
    series.store.put("runs/small-v0002/version.json", b"{}")
    assert [status.run for status in every_run(series.store)] == ["small-v0001"]
    change_class(root, "cat")
    assert series(small(root, REAL)).run.name == "small-v0003"


@pytest.mark.parametrize(
    "pool", [(), ("squeeze.pool=[{model: {name: resnet18_small, width: 5}}]",)]
)
def test_a_collection_keeps_what_a_version_is_made_from(
    series: Series, root: Path, pool: tuple[str, ...]
) -> None:
    first = series(small(root, *pool)).run
    write_class(root, "bat", seed=7)
    run = series(small(root, *pool), "fine_tune", complete=series.upto("ingest")).run
    series.store.delete(run.path("ingest.json"))
    shutil.rmtree(Path(series.store.url, "runs", first.name))
    collect(series.store, clock=lambda _store: datetime.now(UTC) + timedelta(days=30))
    assert series.store.exists(f"datasets/{version_of(run).dataset}/index.json")
    series.resume(run)
    assert {stage for stage, _ in series.ran} >= {"squeeze", "recover"}
    assert load_index(series.store, dataset_of(run)).class_names[-1] == "bat"
    assert write_diff(run) is None


def test_damage_to_the_source_of_a_version_is_named(series: Series, root: Path) -> None:
    series(small(root, REAL))
    change_class(root, "cat")
    run = series(small(root, REAL)).run
    series.store.put(run.path("version.json"), b"[]")
    with pytest.raises(DataError, match=r"version\.json: 2 bytes are not a version record"):
        series(small(root, REAL))
