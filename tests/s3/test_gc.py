"""Collection in a bucket: ages by the clock of the store, and unfinished uploads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from distill_core.errors import StorageError
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.identity import ensure_identity
from distill_core.storage.store import Store
from tasks.gc.clock import store_time
from tasks.gc.collect import GRACE, Collection, collect
from tests.support.planned import Workshop, drop, jobs, paths, reachable, stray

KEY = "0123456789abcdef" * 2


def gc(store: Store, *, now: datetime) -> Collection:
    """Collect with the grace period of a week."""
    return collect(store, clock=lambda _store: now)


def begin_upload(store: Store, path: str) -> None:
    """Begin an upload, send one part, and die."""
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    client, where = boto3.client("s3"), {"Bucket": bucket, "Key": f"{prefix}/{path}"}
    upload = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"part")


def test_uploads_older_than_the_grace_period_are_removed_and_younger_ones_kept(
    s3_store: Store,
) -> None:
    neighbour = Store(f"{s3_store.url}-neighbour")
    ensure_identity(s3_store)
    begin_upload(s3_store, f"recover/data/{KEY}-{KEY}.parquet")
    begin_upload(s3_store, f"squeeze/data/{KEY}-{KEY}.safetensors")
    begin_upload(s3_store, "recover/data/of-somebody-else.parquet")
    begin_upload(neighbour, f"recover/data/{KEY}-{KEY}.parquet")
    begun = [upload.begun for upload in s3_store.uploads()]  # moto calls every upload years old
    young = gc(s3_store, now=min(begun) + GRACE - timedelta(seconds=1))
    assert (young.removed, len(young.waiting)) == ((), 2)
    assert len(s3_store.uploads()) == 3
    old = gc(s3_store, now=max(begun) + GRACE + timedelta(seconds=1))
    assert [item.kind for item in old.removed] == ["uploads", "uploads"]
    (foreign,) = s3_store.uploads()
    assert foreign.path == "recover/data/of-somebody-else.parquet"
    assert len(neighbour.uploads()) == 1
    assert gc(s3_store, now=max(begun) + 2 * GRACE).removed == ()


def test_a_bucket_is_collected_like_a_folder(s3_store: Store, tmp_path: Path) -> None:
    workshop, now = Workshop(tmp_path), datetime.now(UTC)
    first = workshop.finished(s3_store, "first")
    second = workshop.finished(s3_store, "second", "seed=1")
    lost = stray(s3_store, "recover", jobs(first, "recover")[0].key)
    assert gc(s3_store, now=now).removed == ()
    drop(second)
    done = gc(s3_store, now=now + 2 * GRACE)
    assert {item.kind for item in done.removed} == {"shards", "attempts"}
    assert lost in {item.path for item in done.removed}
    assert paths(s3_store) == reachable(first) | {IDENTITY}
    assert gc(s3_store, now=now + 2 * GRACE).removed == ()


def test_a_multipart_upload_that_fails_halfway_leaves_no_object(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = s3_store._backend.fs._fs  # type: ignore[attr-defined]
    call, parts = fs._call_s3, iter([True])

    async def fail_at_the_second_part(method: str, *arguments: object, **request: object) -> object:
        if method == "upload_part" and not next(parts, False):
            raise OSError(5, "the line went dead")
        return await call(method, *arguments, **request)

    monkeypatch.setattr(fs, "_call_s3", fail_at_the_second_part)
    with pytest.raises(StorageError, match="the line went dead"):
        s3_store.put("squeeze/data/a-0.safetensors", bytes(101 * 2**20))
    assert s3_store.files("") == ()
    assert not s3_store.exists("squeeze/data/a-0.safetensors")


def test_ages_come_from_the_clock_of_the_bucket(s3_store: Store) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    assert before < store_time(s3_store) < before + timedelta(minutes=10)
    assert s3_store.files("") == ()
