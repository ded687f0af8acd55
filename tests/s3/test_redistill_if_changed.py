"""`--if-changed` with images and a store in a bucket, compared by their etags."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from distill_core.storage.store import Store
from flows.runs.last_version import unchanged
from tests.support.datasets import png
from tests.support.places import objects
from tests.support.series import ONE_SHARD, Series, dataset, fabricated, small


def test_a_bucket_is_listed_and_its_images_are_compared_by_their_etags(
    s3_bucket: str, s3_store: Store, tmp_path: Path
) -> None:
    folder, series = dataset(tmp_path), Series(s3_store)
    images = Store(f"{s3_bucket}/{uuid4().hex}")
    for path in folder.rglob("*.png"):
        images.put(path.relative_to(folder).as_posix(), path.read_bytes())
    config = small(folder, *ONE_SHARD, f"data.path={images.url}")
    first = series(config, complete=fabricated).run
    before = objects(s3_store)
    assert unchanged(config, s3_store, series="small", policy="keep") == first
    images.put("test/cat/0.png", (folder / "test/cat/0.png").read_bytes())  # the same etag
    assert unchanged(config, s3_store, series="small", policy="keep") == first
    images.put("test/cat/0.png", png(99_999))
    assert unchanged(config, s3_store, series="small", policy="keep") is None
    assert objects(s3_store) == before
