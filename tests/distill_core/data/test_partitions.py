"""An index in partitions: the same dataset, whatever the partitions, and read only where needed."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.data import index_files, index_table
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import check_index, load_index, open_index
from distill_core.data.index_table import IndexTable, RowCounts, partition_bounds
from distill_core.data.ingest import ingest
from distill_core.data.parts.kept_blocks import keep_blocks
from distill_core.data.parts.read import TABLE
from distill_core.errors import DataError
from distill_core.storage.markers import Marker
from distill_core.storage.records import seal_json
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png, write_parquet


def mixed(tmp_path: Path) -> Any:
    """Return a dataset whose classes are mixed, with a damaged image and rows without a label."""
    rows: list[tuple[bytes | None, int | None]] = [(png(n), n * 7 % 5) for n in range(40)]
    rows[11], rows[23] = (b"damaged", 2), (png(90), None)
    for split, some in (("train", rows), ("test", rows[:9])):
        write_parquet(tmp_path / f"{split}.parquet", some, names=("a", "b", "c", "d", "e"))
    return data_config(tmp_path, format="parquet", num_classes=5, max_bad_fraction=0.2)


def in_partitions(config: Any, folder: Path, rows: int) -> tuple[Store, DatasetIndex]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_table, "PARTITION_ROWS", rows)
        store = Store(str(folder / f"store-{rows}"))
        return store, ingest(config, store)


def test_partitions_change_neither_the_id_nor_the_rows(tmp_path: Path) -> None:
    config = mixed(tmp_path)
    _, whole = in_partitions(config, tmp_path, 1000)
    for rows in (1, 9, 20):
        store, index = in_partitions(config, tmp_path, rows)
        assert len(index.tables["train"].bounds) > 1
        assert index == whole
        check_index(store, index.id)
        for label in range(6):
            assert np.array_equal(index.rows_of("train", label), whole.rows_of("train", label))
        chosen = np.array([30, 2, 17, 2, 39, 0])
        assert index.tables["train"].take(chosen).equals(whole.train.take(pa.array(chosen)))
        assert np.array_equal(index.tables["train"].labels(), whole.tables["train"].labels())
        assert index.count_readable("train") == 38
        assert len(whole.tables["train"].bounds) == 1


def test_planning_reads_no_rows_and_a_class_only_its_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, index = in_partitions(mixed(tmp_path), tmp_path, 9)
    load, seen = index_files.load_partition, list[int]()

    def noted(*some: Any) -> pa.Table:
        seen.append(some[-1])
        return load(*some)

    monkeypatch.setattr(index_files, "load_partition", noted)
    opened = open_index(store, index.id)
    assert opened.class_sizes("train") == index.class_sizes("train")
    assert opened.without_images("train") == ()
    rows = opened.rows_of("train", 3)
    assert seen == []
    names = opened.tables["train"].take(rows)["wnid"].to_pylist()
    assert set(names) == {"d"}
    assert len(seen) == 1


def test_an_edited_count_of_rows_is_found_by_verification(tmp_path: Path) -> None:
    store, index = in_partitions(mixed(tmp_path), tmp_path, 9)
    path = index_files.description_path(index.id)
    text = store.read(path).decode()
    (bad,) = index.tables["train"].counts.bad[-1:]
    assert load_index(store, index.id).count_readable("train") == 38
    tree = json.loads(text)
    tree["bad"]["train"] = tree["bad"]["train"][:-1]
    del tree["record_sha256"]
    store.put(path, seal_json(tree))
    assert bad not in open_index(store, index.id).tables["train"].counts.bad
    with pytest.raises(DataError, match="count of train rows does not follow"):
        check_index(store, index.id)


def test_edited_bounds_of_partitions_are_found(tmp_path: Path) -> None:
    store, index = in_partitions(mixed(tmp_path), tmp_path, 9)
    path = index_files.description_path(index.id)
    tree = json.loads(store.read(path))
    del tree["record_sha256"]
    first, second, *_ = tree["partitions"]["train"]
    second["first"] = first["last"] = first["last"] + 1
    store.put(path, seal_json(tree))
    with pytest.raises(DataError, match="has other classes than those from"):
        load_index(store, index.id)
    second["first"] = first["last"] = first["last"] - 1
    tree["partitions"]["train"][-1]["last"] += 1
    store.put(path, seal_json(tree))
    with pytest.raises(DataError, match="division of the train rows into classes does not follow"):
        check_index(store, index.id)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 9), st.integers(1, 12))
def test_bounds_divide_the_classes_and_never_a_class(
    rows: list[int], unlabelled: int, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_table, "PARTITION_ROWS", limit)
        bounds = partition_bounds(rows, unlabelled)
    assert [bounds[0][0], bounds[-1][1]] == [-1, len(rows)]
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    for first, last in bounds:
        sizes = rows[max(first, 0) : last]
        total = sum(sizes) + (unlabelled if first < 0 else 0)
        assert total <= limit or sum(size > 0 for size in sizes) <= 1 or first < 0


def test_the_rows_of_a_class_beyond_the_index_are_none() -> None:
    table = pa.table({"label": [0, 0], "status": ["ok", "ok"]})
    assert RowCounts.of(iter([table]), 1).readable.tolist() == [2]
    assert len(IndexTable.of(table, 1).rows_of(7)) == 0


@pytest.mark.parametrize("rule", [None, "per_class:2"])
def test_the_rows_of_a_shard_are_read_once_where_parts_are_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str | None
) -> None:
    for split in ("train", "test")[: 1 if rule else 2]:
        for name in "abc":
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(5):
                (folder / f"{number}.png").write_bytes(png(ord(name) * 10 + number))
    load, seen = ShardStore.load, Counter[str]()

    def noted(self: ShardStore, marker: Marker, suffix: str) -> bytes:
        seen[f"{marker.key}.{suffix}"] += 1
        return load(self, marker, suffix)

    monkeypatch.setattr(ShardStore, "load", noted)
    config = data_config(tmp_path / "data", num_classes=3, split=rule)
    ingest(config, Store(str(tmp_path / "store")))
    assert sum(key.endswith(f".{TABLE}") for key in seen) > 0
    assert set(seen.values()) == {1}


def test_blocks_that_find_no_room_on_the_disk_are_read_again(tmp_path: Path) -> None:
    table, calls = pa.table({"row": [1, 2, 3]}), list[int]()

    def load(number: int) -> pa.Table:
        calls.append(number)
        return table

    occupied = tmp_path / "occupied"
    occupied.touch()  # a file, so that no folder can be made there
    for folder, reads in ((occupied, 2), (tmp_path / "blocks", 1)):
        read = keep_blocks(load, folder)
        assert read(7).equals(table)
        assert read(7).equals(table)
        assert calls == [7] * reads
        calls.clear()
