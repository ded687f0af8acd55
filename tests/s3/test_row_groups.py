"""Label shards in a bucket: one ranged request per view, and the same labels."""

from __future__ import annotations

import pytest

from distill_core.errors import ShardError
from distill_core.storage.label_shards import decode_labels, encode_labels
from distill_core.storage.markers import ShardFacts
from distill_core.storage.row_groups import RowGroupFile
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support.label_shards import parts, shard


def test_views_are_read_one_by_one(s3_store: Store) -> None:
    rows = shard(views=range(8), count=200, width=300, mix="cutmix", scheme="features")
    data, shard_store = encode_labels(rows), ShardStore(s3_store, "relabel")
    facts = ShardFacts(rows=1600, classes=200, seconds=0.0, device="cpu")
    marker = shard_store.commit("ab" * 16, shard="s", files={"parquet": data}, facts=facts)
    info, where = marker.file("parquet"), shard_store.marker_path(marker.key)
    file = RowGroupFile(s3_store, info, marker=where)
    for view in (3, 0, 7, 1):
        assert parts(decode_labels(file, [view])) == parts(decode_labels(data, [view]))
        file.release()
    s3_store.put(info.path, data[:-1])
    with pytest.raises(ShardError, match=f"Delete {s3_store.uri(where)}"):
        RowGroupFile(s3_store, info, marker=where)
