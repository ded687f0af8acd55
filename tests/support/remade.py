"""Shards of a finished run that are made again with other bytes, as another device makes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distill_core.storage.image_shards import ImageRows, decode_images, encode_images
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store


def make_again(
    store: Store,
    kind: str,
    key: str,
    changed: Mapping[str, bytes],
    *,
    made_with: Mapping[str, str] | None = None,
) -> Marker:
    """Delete the marker of a shard and commit it again; its other files stay the same."""
    shard_store = ShardStore(store, kind)
    before = shard_store.marker(key)
    assert before is not None, key
    files = {info.suffix: shard_store.load(before, info.suffix) for info in before.files}
    store.delete(shard_store.marker_path(key))
    facts = ShardFacts(
        rows=before.rows,
        classes=before.classes,
        seconds=before.seconds,
        device=before.device,
        summary=before.summary,
        made_with=before.made_with if made_with is None else made_with,
    )
    return shard_store.commit(key, shard=before.shard, files=files | dict(changed), facts=facts)


def make_images_again(store: Store, key: str) -> Marker:
    """Make an image shard again with one pixel that is rounded the other way."""
    shard_store = ShardStore(store, "recover")
    marker = shard_store.marker(key)
    assert marker is not None, key
    rows = decode_images(shard_store.load(marker, "parquet"))
    pixels = rows.pixels.copy()
    pixels[0, 0, 0, 0] ^= 1
    losses = {"cross_entropy": np.zeros(len(rows.images), np.float32)}
    images = encode_images(ImageRows(rows.images, pixels), encoding="png", losses=losses)
    return make_again(store, "recover", key, {"parquet": images})
