"""Shards of ingestion: kept while a run has or may get them, and collected after that."""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from distill_core.data import archives
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.identity import ensure_identity
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.gc.collect import Collection, collect
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.planned import Workshop, begin, date, drop, paths, reachable, stray
from tests.support.repository import ROOT

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=30)
ARCHIVE = ROOT / "tests" / "golden" / "store-before-restructuring.tar.xz"
KEY = "ab" * 16  # of a part that no run has


@pytest.fixture
def store() -> Store:
    """Return an empty store in this process."""
    return Store(f"memory://{uuid4().hex}")


def gc(store: Store) -> Collection:
    """Collect with a grace period of a week, with every object a month old."""
    date(store, paths(store), OLD)
    return collect(store, clock=lambda _store: NOW)


def ingested(store: Store) -> frozenset[str]:
    """Return the keys of the parts that are read."""
    return ShardStore(store, "ingest").done()


def test_parts_are_kept_until_the_last_run_over_the_dataset_is_deleted(
    workshop: Workshop, store: Store
) -> None:
    runs = [workshop.register(store, name) for name in ("first", "second")]
    for run in runs:
        workshop.ingest(run)
    parts = ingested(store)
    assert len(parts) == 2
    lost = stray(store, "ingest", next(iter(parts)))
    assert [item.path for item in gc(store).removed] == [lost]
    drop(runs[0])
    assert gc(store).removed == ()
    assert paths(store) == reachable(runs[1]) | {IDENTITY}
    drop(runs[1])
    gc(store)
    assert paths(store) == {IDENTITY}


def test_decompressed_archives_are_kept_as_long_as_the_parts_that_were_read_from_them(
    workshop: Workshop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workshop.register(store, "first")
    workshop.ingest(run)
    monkeypatch.setattr(archives, "PIECE_BYTES", 10)
    for part in ingested(store):
        writer = archives.ArchiveWriter(ShardStore(store, "ingest"), part, "train-00000")
        writer.write(bytes(25))
        writer.close()
        writer.commit()
    lost = archives.ArchiveWriter(ShardStore(store, "ingest"), KEY, "train-00001")
    lost.write(bytes(25))  # by a process that was killed
    removed = [item.path for item in gc(store).removed]
    assert len(removed) == 2
    assert all(path.endswith(".pack") and archives.archive_key(KEY) in path for path in removed)
    assert sum(path.endswith(".pack") for path in paths(store)) == 6
    drop(run)
    gc(store)
    assert paths(store) == {IDENTITY}


def test_a_run_that_has_not_recorded_its_dataset_keeps_every_part(
    workshop: Workshop, store: Store
) -> None:
    """Which parts it has is known to its drivers alone, so another dataset's are kept as well."""
    run, other = (workshop.register(store, name) for name in ("first", "second"))
    workshop.ingest(other)
    drop(other)
    begin(run)
    held = {kept.path: kept.reason for kept in gc(store).kept}
    assert "not ingested yet" in held["ingest/"]
    assert len(ingested(store)) == 2
    drop(run)
    gc(store)
    assert ingested(store) == frozenset()


def test_parts_of_an_earlier_content_of_the_dataset_are_collected(
    workshop: Workshop, store: Store
) -> None:
    run = workshop.register(store, "first")
    workshop.ingest(run)
    facts = ShardFacts(rows=1, classes=1, seconds=1.0, device="cpu")
    ShardStore(store, "ingest").commit(KEY, shard="old", files={"parquet": b"rows"}, facts=facts)
    assert {item.path.partition("-")[0] for item in gc(store).removed} == {
        f"ingest/_done/{KEY}.json",
        f"ingest/data/{KEY}",
    }
    assert stage_status(run, StageId("ingest")).complete


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_run_whose_manifest_of_parts_is_lost_keeps_every_part_and_stays_complete(
    is_empty: bool, workshop: Workshop, store: Store
) -> None:
    run = workshop.register(store, "first")
    workshop.ingest(run)
    store.delete(run.path("ingest.manifest.json"))
    if is_empty:
        save_manifest(store, run.name, Manifest("ingest", ()))
    (held,) = gc(store).kept
    assert (held.path, "names no shards" in held.reason) == ("ingest/", True)
    assert len(ingested(store)) == 2
    assert stage_status(run, StageId("ingest")).complete


def test_runs_of_version_0_1_0_have_no_parts_and_keep_none(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    store = Store(str(tmp_path))
    ensure_identity(store)
    facts = ShardFacts(rows=1, classes=1, seconds=1.0, device="cpu")
    ShardStore(store, "ingest").commit(KEY, shard="old", files={"parquet": b"rows"}, facts=facts)
    gone = {item.path.partition("-")[0] for item in gc(store).removed}
    assert gone == {f"ingest/_done/{KEY}.json", f"ingest/data/{KEY}"}
