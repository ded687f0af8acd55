"""A Parquet file read from a store by row groups: bounded memory, counted reads, hashed bytes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from distill_core.errors import DataError, ShardError
from distill_core.storage.digest import sha256
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from distill_core.storage.markers import FileInfo
from distill_core.storage.row_groups import TAIL, RowGroupFile
from distill_core.storage.store import Store
from tests.support.label_shards import opened, parts, shard

VIEWS = range(20, 30)
PATH = "relabel/data/key-token.parquet"


@pytest.fixture(scope="module")
def data() -> bytes:
    """Return a label shard of ten views, 64 kB each."""
    rows = shard(views=VIEWS, count=200, width=300, mix="cutmix", scheme="features")
    return encode_labels(rows)


def stored(store: Store, data: bytes, *, was: bytes | None = None) -> RowGroupFile:
    """Store a file under a marker that describes it, or what it was; open it."""
    store.put(PATH, data)
    was = data if was is None else was
    info = FileInfo("parquet", PATH, len(was), sha256(was))
    return RowGroupFile(store, info, marker="relabel/_done/key.json")


def read(file: RowGroupFile, view: int) -> LabelRows:
    """Read one view."""
    return decode_labels(file, [view], where=file.where)


def flipped(data: bytes, position: int) -> bytes:
    """Return the data with one bit changed."""
    return data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]


def page_of(data: bytes, view: int) -> int:
    """Return a position in the labels of a view."""
    group = opened(data).metadata.row_group(view - VIEWS.start)
    column = group.column(group.num_columns - 1)
    return int(column.data_page_offset + column.total_compressed_size - 9)


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that fills with (first byte, byte after the last) of every read of a store."""
    seen: list[tuple[int, int]] = []
    honest = Store.read_range

    def noting(store: Store, path: str, start: int, length: int) -> bytes:
        found = honest(store, path, start, length)
        seen.append((start, start + len(found)))
        return found

    monkeypatch.setattr(Store, "read_range", noting)
    return seen


@pytest.mark.parametrize("order", [list(VIEWS), list(reversed(VIEWS)), [25, 21, 29, 21, 20, 29]])
def test_views_are_those_of_the_whole_file_in_any_order(
    store: Store, data: bytes, order: list[int]
) -> None:
    file = stored(store, data)
    for view in order:
        assert parts(read(file, view)) == parts(decode_labels(data, [view]))
        file.release()
    assert parts(decode_labels(file, where=file.where)) == parts(decode_labels(data))


def test_views_in_order_read_every_byte_once_and_the_footer_at_most_twice(
    store: Store, data: bytes, ranges: list[tuple[int, int]]
) -> None:
    file = stored(store, data)
    for view in VIEWS:
        read(file, view)
        file.release()
    assert len(ranges) == 1 + len(VIEWS) + 1  # the footer, the views, the magic at the beginning
    assert sum(stop - start for start, stop in ranges) <= len(data) + TAIL
    before = len(ranges)
    read(file, VIEWS[0])
    assert len(ranges) == before + 1


def test_skipped_views_are_read_once_for_the_hash(
    store: Store, data: bytes, ranges: list[tuple[int, int]]
) -> None:
    file = stored(store, flipped(data, 0), was=data)
    with pytest.raises(ShardError, match="sha256"):
        read(file, VIEWS[-1])
    assert sum(stop - start for start, stop in ranges) <= len(data) + TAIL


def test_only_one_view_is_held_in_memory(tmp_path: Path, data: bytes) -> None:
    file = stored(Store(str(tmp_path)), data)
    read(file, VIEWS[0])  # what is imported for the first time is no view
    tracemalloc.start()
    for view in VIEWS:
        read(file, view)
        file.release()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(data) / 2


def test_a_damaged_page_is_found_when_its_view_is_read(store: Store, data: bytes) -> None:
    file = stored(store, flipped(data, page_of(data, 23)), was=data)
    for view in (20, 21, 22, 24):
        assert parts(read(file, view)) == parts(decode_labels(data, [view]))
    with pytest.raises(DataError, match=PATH):
        read(file, 23)


def test_damage_outside_page_checksums_is_found_at_the_end(store: Store, data: bytes) -> None:
    file = stored(store, flipped(data, 0), was=data)
    for view in VIEWS[:-1]:
        read(file, view)
    with pytest.raises(ShardError, match=r"sha256 .* the marker states .*_done/key.json"):
        read(file, VIEWS[-1])


@pytest.mark.parametrize("keep", [0, 5, 50_000, -1])
def test_a_file_that_was_cut_is_refused(store: Store, data: bytes, keep: int) -> None:
    with pytest.raises(ShardError, match="the marker states"):
        stored(store, data[:keep], was=data)


def test_a_file_that_is_no_parquet_is_refused(store: Store) -> None:
    with pytest.raises(ShardError, match="no Parquet footer"):
        stored(store, b"not a table " * 1000)


def test_a_file_that_is_gone_is_named(store: Store, data: bytes) -> None:
    file = stored(store, data)
    store.delete(PATH)
    with pytest.raises(DataError, match=f"{PATH}: no such object"):
        read(file, VIEWS[0])


@pytest.mark.parametrize(("views", "count"), [(range(3), 2), (range(90), 3)])
def test_tiny_files_and_footers_larger_than_the_first_read_are_read_too(
    store: Store, views: range, count: int
) -> None:
    rows = shard(views=views, count=count, width=5, mix="cutmix", scheme="features")
    data = encode_labels(rows)
    assert (len(data) < TAIL) == (len(views) == 3)
    file = stored(store, data)
    for view in views:
        assert parts(read(file, view)) == parts(decode_labels(data, [view]))
