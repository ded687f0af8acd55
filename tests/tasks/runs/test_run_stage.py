"""A stage is planned again before its manifest is written, because other drivers work meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_core.errors import StorageError
from distill_core.storage import delays
from distill_core.storage.manifest import Manifest, load_manifest, save_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from flows.maintenance.verify_records import UNCHAINED
from tasks.execution import Execution
from tasks.jobs import Job
from tasks.pools.provider import PoolProvider
from tasks.run import Run
from tasks.runs.run_stage import run_stage
from tasks.runs.stage_status import StageStatus, stage_status
from tasks.stages.inputs import Jobs
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tests.support.fabricate import finished_run
from tests.support.notes import Notes
from tests.support.workers import committing

POSTTRAIN = StageId("posttrain")


class Upstream:
    """The manifests before post-train, complete or without a shard, as drivers may write them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.whole = {name: manifest(run, name) for name in ("recover", "relabel")}
        self.is_whole = True

    def miss(self) -> None:
        """Write them without a shard."""
        for whole in self.whole.values():
            left = replace(whole, entries=whole.entries[:1], missing=(whole.entries[1].shard,))
            save_manifest(self.run.store, self.run.name, left)
        self.is_whole = False

    def complete(self) -> None:
        """Write them as they were."""
        for whole in self.whole.values():
            save_manifest(self.run.store, self.run.name, whole)
        self.is_whole = True

    def change(self) -> None:
        """Write the other ones."""
        (self.miss if self.is_whole else self.complete)()


def manifest(run: Run, name: str) -> Manifest:
    stored = load_manifest(run.store, run.name, name)
    assert stored is not None
    return stored


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run without its students."""
    run = finished_run(tmp_path, "recover.ipc_range=1")  # two image shards
    for job in JobPlan(run).jobs(POSTTRAIN)[POSTTRAIN]:
        run.store.delete(ShardStore(run.store, "posttrain").marker_path(job.key))
    run.store.delete(run.path("posttrain.manifest.json"))
    return run


@pytest.fixture
def upstream(run: Run) -> Upstream:
    return Upstream(run)


def post_train(run: Run) -> StageStatus:
    execution = Execution(store=run.store.url, local=True, allow_missing=1)
    with PoolProvider(execution) as pools:
        return run_stage(run, POSTTRAIN, execution=execution, observer=Notes(), pools=pools)


def test_students_of_a_stale_plan_enter_no_manifest(run: Run, upstream: Upstream) -> None:
    whole = {job.key for job in JobPlan(run).jobs(POSTTRAIN)[POSTTRAIN]}
    upstream.miss()

    def complete_once(job: Job) -> None:
        if not upstream.is_whole:
            upstream.complete()  # another driver has made the missing shard meanwhile

    with committing("posttrain", complete_once):
        status = post_train(run)
    assert status.complete
    written = manifest(run, "posttrain")
    assert {entry.key for entry in written.entries} == whole
    assert written.missing == ()


def test_a_stage_whose_plan_never_rests_is_left_without_a_manifest(
    run: Run, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobPlan.jobs

    def jobs_of_another_plan(self: JobPlan, stage: StageId) -> Jobs:
        upstream.change()  # another driver cannot make up its mind
        return jobs(self, stage)

    monkeypatch.setattr(JobPlan, "jobs", jobs_of_another_plan)
    with committing("posttrain"):
        assert not post_train(run).complete
    assert load_manifest(run.store, run.name, "posttrain") is None


def test_a_driver_waits_for_a_store_that_is_away_around_the_jobs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = deque([True, True, False, True] * 4)

    def answering(call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(self: Store, *arguments: Any, **options: Any) -> Any:
            if away and away.popleft():
                raise StorageError(f"{self.url}: the store is away.")
            return call(self, *arguments, **options)

        return ask

    monkeypatch.setattr(delays, "FIRST_SECONDS", 0.01)
    for name in ("read", "put", "files"):
        monkeypatch.setattr(Store, name, answering(getattr(Store, name)))
    with committing("posttrain") as worker:
        assert post_train(run).complete
    assert not away
    assert len(worker.ran) == len(set(worker.ran)) == len(manifest(run, "posttrain").entries)


def test_a_manifest_records_those_that_it_builds_on(run: Run) -> None:
    with committing("posttrain"):
        assert post_train(run).complete
    names = ("squeeze", "recover", "recover.random_real", "relabel", "relabel.random_real")
    built_on = manifest(run, "posttrain").built_on
    assert built_on == {name: manifest(run, name).digest for name in names}


def replace_traces(run: Run) -> None:
    """Let the manifest of the images list another trace, which is part of no key."""
    images = manifest(run, "recover")
    first = images.entries[0]
    (pixels, (suffix, size, _)) = first.files
    changed = replace(first, files=(pixels, (suffix, size, "0" * 64)))
    save_manifest(run.store, run.name, replace(images, entries=(changed, *images.entries[1:])))


def test_a_manifest_over_files_that_were_replaced_is_found_and_written_again(run: Run) -> None:
    with committing("posttrain") as worker:
        post_train(run)
        replace_traces(run)
        assert not stage_status(run, POSTTRAIN).complete
        damage = {each.path: each.problem for each in verify_run(run).damage}
        assert damage[run.path("posttrain.manifest.json")] == UNCHAINED
        worker.ran.clear()
        assert post_train(run).complete
    assert worker.ran == []
    built_on = manifest(run, "posttrain").built_on
    assert built_on is not None
    assert built_on["recover"] == manifest(run, "recover").digest


def test_a_manifest_of_an_older_version_is_complete_without_the_digests(run: Run) -> None:
    with committing("posttrain"):
        post_train(run)
    save_manifest(run.store, run.name, replace(manifest(run, "posttrain"), built_on=None))
    replace_traces(run)
    assert stage_status(run, POSTTRAIN).complete
