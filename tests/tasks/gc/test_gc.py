"""Collection: what it removes, keeps and refuses, and runs that begin during a collection."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from distill_core.errors import ConfigError, DataError, StorageError
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.listing import PARTIAL
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.records import seal_json
from distill_core.storage.shard_store import ShardStore, new_token
from distill_core.storage.store import Store
from tasks.gc import collect as collecting
from tasks.gc.collect import Collection, collect, survey
from tasks.gc.unreferenced import find_garbage
from tasks.run import Run
from tasks.series import Version, claim
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tests.support.planned import (
    Workshop,
    begin,
    checkpoint,
    commit,
    date,
    drop,
    finish,
    jobs,
    paths,
    reachable,
    stray,
)

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=30)
OTHER = "other-0123456789ab"


@pytest.fixture
def store() -> Store:
    """Return an empty store in this process."""
    return Store(f"memory://{uuid4().hex}")


@pytest.fixture
def run(workshop: Workshop, store: Store) -> Run:
    """Return a finished run, a month old."""
    made = workshop.finished(store, "first")
    date(store, paths(store), OLD)
    return made


def gc(store: Store) -> Collection:
    """Collect with a grace period of a week."""
    return collect(store, clock=lambda _store: NOW)


def put_other_dataset(store: Store) -> None:
    """Store the only dataset again under another id."""
    (dataset,) = store.folders("datasets")
    for file in store.files(f"datasets/{dataset}"):
        data = store.read(file.path)
        if file.path.endswith("index.json"):
            tree = json.loads(data)
            data = seal_json({**tree, "id": OTHER} | {"record_sha256": ""})
        store.put(file.path.replace(dataset, OTHER), data)


def kinds(done: Collection) -> set[str]:
    """Return the kinds of what went."""
    return {item.kind for item in done.removed}


def key_of(run: Run, stage: str) -> str:
    """Return the key of the first shard of a stage."""
    return jobs(run, stage)[0].key


def test_collecting_keeps_everything_of_a_finished_run_but_orphaned_files(run: Run) -> None:
    store, before = run.store, paths(run.store)
    lost = stray(store, "recover", key_of(run, "recover"))
    date(store, {lost, *(left := checkpoint(store, "squeeze", key_of(run, "squeeze")))}, OLD)
    assert {item.path for item in gc(store).removed} == {lost, *left}
    assert paths(store) == before


def test_a_deleted_run_is_collected_except_for_shared_shards(workshop: Workshop, run: Run) -> None:
    other = workshop.finished(run.store, "second", "ipc=3")
    drop(run)
    date(run.store, paths(run.store), OLD)
    gone = {item.path.split("/")[0] for item in gc(run.store).removed}
    assert gone == {"posttrain"}  # the students saw two images per class, those of the other three
    assert paths(run.store) == reachable(other) | {IDENTITY}
    drop(other)
    assert kinds(gc(run.store)) == {"shards", "datasets"}
    assert paths(run.store) == {IDENTITY}


def test_young_objects_are_kept_and_reported(run: Run) -> None:
    probe = f".probe/{new_token()}"
    run.store.put(probe, b"probe")
    done = gc(run.store)
    assert done.removed == ()
    assert [item.path for item in done.waiting] == [probe]
    date(run.store, [probe], OLD)
    assert [item.path for item in gc(run.store).removed] == [probe]


def test_a_survey_lists_garbage_and_removes_nothing(run: Run) -> None:
    drop(run)
    before = paths(run.store)
    would = survey(run.store, clock=lambda _store: NOW)
    assert paths(run.store) == before
    assert gc(run.store) == would
    assert {item.path for item in would.removed} == before - {IDENTITY}


def test_shards_and_checkpoints_of_an_unfinished_stage_are_kept(
    workshop: Workshop, store: Store
) -> None:
    run = workshop.register(store, "first")
    workshop.ingest(run)
    checkpoint(store, "squeeze", key_of(run, "squeeze"))
    lost = stray(store, "squeeze", key_of(run, "squeeze"))
    date(store, paths(store), OLD)
    assert [item.path for item in gc(store).removed] == [lost]
    finish(run, "squeeze")
    commit(run, "recover", jobs(run, "recover")[0])
    date(store, paths(store), OLD)
    assert kinds(gc(store)) == {"checkpoints"}
    assert paths(store) == reachable(run) | {IDENTITY}


def test_a_run_that_has_not_ingested_keeps_every_dataset_of_that_name(
    workshop: Workshop, run: Run
) -> None:
    drop(run)
    workshop.register(run.store, "second")
    put_other_dataset(run.store)
    date(run.store, paths(run.store), OLD)
    gc(run.store)
    kept = {path.split("/")[1] for path in paths(run.store) if path.startswith("datasets/")}
    assert kept == {workshop.dataset}


@pytest.mark.parametrize("way", ["reuse", "start"])
def test_a_teacher_is_kept_while_a_config_names_its_run(
    workshop: Workshop, run: Run, way: str
) -> None:
    teacher = key_of(run, "squeeze")
    drop(run)
    begin(workshop.register(run.store, "second", f"squeeze.{way}={teacher}"))
    gc(run.store)
    kept = {path.split("/")[0] for path in paths(run.store)}
    assert kept == {"ingest", "squeeze", "datasets", "runs", IDENTITY}
    assert ShardStore(run.store, "squeeze").done() == {teacher}


def test_a_version_keeps_its_dataset_before_it_is_registered(workshop: Workshop, run: Run) -> None:
    store, before = run.store, OTHER
    put_other_dataset(store)
    version = Version(previous="first", dataset=before, policy="keep", requested=run.config)
    claim(Run("second", run.config, store), version)
    drop(run)
    date(store, paths(store), OLD)
    gc(store)
    kept = {path.split("/")[1] for path in paths(store) if path.startswith("datasets/")}
    assert kept == {before, workshop.dataset}


def test_shards_missing_in_a_manifest_are_kept_when_made_later(run: Run) -> None:
    jobs_of_set = JobPlan(run).jobs(StageId("recover"))[StageId("recover")]
    late, markers = jobs_of_set[0], [commit(run, "recover", job) for job in jobs_of_set[1:]]
    save_manifest(run.store, run.name, Manifest.of("recover", markers, [late.shard]))
    before = paths(run.store)
    date(run.store, before, OLD)
    assert gc(run.store).removed == ()
    assert paths(run.store) == before


def test_a_release_keeps_the_shards_of_the_manifests_it_carries(run: Run) -> None:
    manifest = run.store.read(run.path("recover.manifest.json"))
    run.store.put("published/tiny-1/recover.manifest.json", manifest)
    run.store.put("published/tiny-1/README.md", b"card")
    drop(run)
    date(run.store, paths(run.store), OLD)
    gc(run.store)
    shelves = {path.split("/")[0] for path in paths(run.store)}
    assert shelves == {"published", "recover", IDENTITY}
    assert not any("random_real" in path for path in paths(run.store))
    assert "published/tiny-1/README.md" in paths(run.store)


def test_data_named_by_a_manifest_is_kept_without_its_marker(run: Run) -> None:
    before = paths(run.store)
    marker = f"recover/_done/{key_of(run, 'recover')}.json"
    run.store.delete(marker)
    gc(run.store)
    assert paths(run.store) == before - {marker}


def test_no_file_of_a_shard_is_removed_while_its_marker_is_damaged(run: Run) -> None:
    key = key_of(run, "recover")
    lost = stray(run.store, "recover", key)
    run.store.put(f"recover/_done/{key}.json", b"{")
    date(run.store, paths(run.store), OLD)
    assert gc(run.store).removed == ()
    assert run.store.exists(lost)


def test_a_marker_younger_than_its_data_keeps_them(run: Run) -> None:
    shard_store = ShardStore(run.store, "recover")
    key = key_of(run, "recover")
    marker = shard_store.marker(key)
    assert marker is not None
    drop(run)
    date(run.store, [shard_store.marker_path(key)], NOW)
    gc(run.store)
    kept = {shard_store.marker_path(key), *(info.path for info in marker.files)}
    assert paths(run.store) == kept | {IDENTITY}


def between(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen between the two passes of a collection."""
    ask, first = collecting.find_references, iter([True])

    def ask_later(store: Store) -> object:
        if next(first, False):
            happens()
        return ask(store)

    monkeypatch.setattr(collecting, "find_references", ask_later)


def contents(store: Store) -> dict[str, bytes]:
    """Return every object of a store."""
    return {path: store.read(path) for path in paths(store)}


def test_a_run_that_begins_between_the_passes_loses_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run.store)
    drop(run)
    # Its students are only planned, which takes the teacher's marker.
    registered = {p: data for p, data in before.items() if "runs/" in p and "posttrain" not in p}

    def begin() -> None:
        """Do what a run does that saw every marker before they went."""
        assert ShardStore(run.store, "recover").done() == frozenset()
        for path, data in registered.items():
            run.store.put(path, data)

    between(monkeypatch, begin)
    assert gc(run.store).removed == ()
    assert contents(run.store) == {
        p: before[p] for p in before if p in registered or "runs/" not in p
    }


def test_a_run_that_begins_between_the_passes_keeps_its_dataset(
    workshop: Workshop, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run.store)
    drop(run)
    between(monkeypatch, lambda: begin(workshop.register(run.store, "second")))
    assert kinds(gc(run.store)) == {"shards"}
    assert {p for p in paths(run.store) if "datasets/" in p} == {
        p for p in before if "datasets/" in p
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StorageError("timed out")])
def test_a_collection_that_fails_its_second_check_restores_everything(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    drop(run)
    before = contents(run.store)

    def fail() -> None:
        raise error

    between(monkeypatch, fail)
    with pytest.raises(type(error)):
        gc(run.store)
    assert contents(run.store) == before


def test_an_object_removed_by_another_process_is_no_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(run)
    found = find_garbage(run.store, NOW).garbage
    for item in found:
        run.store.delete(item.path)
    assert collecting.remove(run.store, found) == found
    assert paths(run.store) == {IDENTITY}


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("runs/first/run.yaml", b"ipc: [1"),
        ("runs/first/run.yaml", b"ipc: 1"),
        ("runs/first/run.yaml", b"\xff\xfe"),
        ("runs/first/run.yaml", None),
        ("runs/first/recover.manifest.json", b'{"version": 1'),
        ("runs/first/ingest.json", b"[]"),
        ("runs/first/ingest.json", b"{"),
        ("published/tiny-1/recover.manifest.json", b"{}"),
    ],
)
def test_an_unreadable_run_or_release_is_named_and_nothing_is_removed(
    run: Run, path: str, data: bytes | None
) -> None:
    run.store.put(f".probe/{new_token()}", b"probe")
    run.store.delete(path)
    if data is not None:
        run.store.put(path, data)
    date(run.store, paths(run.store), OLD)
    before = paths(run.store)
    with pytest.raises(DataError, match=f"^{path.rpartition('/')[0]}: its references"):
        gc(run.store)
    assert paths(run.store) == before


def test_a_run_whose_plan_fails_keeps_every_shard_that_it_may_need(
    workshop: Workshop, run: Run
) -> None:
    drop(run)
    other = workshop.register(run.store, "second", "squeeze.checkpoint=/no/such/file")
    workshop.ingest(other)
    begin(other)
    done = gc(run.store)
    (held,) = done.kept
    assert (held.path, "/no/such/file" in held.reason) == ("squeeze/", True)
    assert {path.split("/")[0] for path in paths(run.store)} == {
        *("ingest", "squeeze", "datasets", "runs", IDENTITY)
    }


def test_an_unreachable_store_is_not_reported_as_a_damaged_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_store: Store, path: str) -> bytes:
        raise StorageError(f"{path}: timed out")

    monkeypatch.setattr(Store, "read", refuse)
    with pytest.raises(StorageError, match="timed out"):
        gc(run.store)


def test_an_age_below_an_hour_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="expected one hour or more"):
        collect(store, grace=timedelta(minutes=59))


def test_partial_files_of_a_killed_writer_are_removed(tmp_path: Path, workshop: Workshop) -> None:
    store = Store(str(tmp_path / "store"))
    run = workshop.finished(store, "first")
    before = paths(store)
    data = f"{new_token()}-{new_token()}.parquet"
    finals = (f"recover/data/.{data}", run.path(".ingest.json"), "runs/empty/.run.yaml")
    left = [f"{final}.0123456789abcdef{PARTIAL}" for final in finals]
    for path in left:
        Path(store.url, path).parent.mkdir(exist_ok=True)
        Path(store.url, path).write_bytes(b"half")
    assert gc(store).removed == ()
    for path in left:
        os.utime(Path(store.url, path), (OLD.timestamp(), OLD.timestamp()))
    assert [item.kind for item in gc(store).removed] == ["partial"] * 3
    assert paths(store) == before
