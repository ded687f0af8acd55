"""Shards of ingestion: kept while a run has or may get them, and collected after that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.markers import ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.gc.collect import Collection, collect
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.planned import Workshop, begin, date, drop, paths, reachable, stray

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=30)
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


def test_a_dataset_whose_manifest_of_parts_is_gone_is_still_complete(
    workshop: Workshop, store: Store
) -> None:
    """As in runs of version 0.1.0, which have an index and no parts."""
    run = workshop.register(store, "first")
    workshop.ingest(run)
    store.delete(run.path("ingest.manifest.json"))
    gc(store)
    assert ingested(store) == frozenset()
    assert stage_status(run, StageId("ingest")).complete
