"""The rows of a split by class, from the shards of its parts.

Blocks of classes are read one at a time, each from the shards that have rows of its classes: one
or two of them twice if the parts are blocks of classes, all of them for each block if the classes
are mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_core.data.index_table import ORDER, SCHEMA, IndexTable, RowCounts, partition_bounds
from distill_core.data.parts.counts import SplitCounts
from distill_core.data.parts.known import ROWS
from distill_core.data.parts.read import SUMMARY, TABLE
from distill_core.data.parts.summary import PartSummary
from distill_core.data.readers.passed_over import PassedOver
from distill_core.data.readers.record import Part
from distill_core.errors import ShardError
from distill_core.sharding import ClassEntry
from distill_core.storage.markers import Marker
from distill_core.storage.parquet import open_parquet
from distill_core.storage.shard_store import ShardStore

READERS = 4  # shards whose rows are read at once
SUMMARIES = 16  # summaries that are read at once, which are small


@dataclass(frozen=True)
class PlannedPart:
    """A part and the key of its shard."""

    part: Part
    key: str
    classes: tuple[str, ...] = ()  # that its records depend on, see `readers.record.classes_of`


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split, counted and not read yet."""

    counts: SplitCounts
    bounds: Sequence[tuple[int, int]]  # classes of each block, see `partition_bounds`
    load: Callable[[int], pa.Table]  # reads a block, sorted

    def table(self, classes: int) -> IndexTable:
        """Return the rows as a table of an index with some number of classes."""
        count = partial(_count, self.load, len(self.bounds), classes)
        return IndexTable(self.bounds, count, self.load, rows=self.counts.total)


@dataclass(frozen=True)
class _Shard:
    """A finished shard, and the classes that it has rows of."""

    marker: Marker
    first: int  # lowest class id; -1: rows of no class
    last: int  # highest class id


def ids_of(classes: Sequence[ClassEntry]) -> dict[str, int]:
    """Return the id of each class by wnid; -1 for the empty one, of images of no class."""
    return {entry.wnid: entry.id for entry in classes} | {"": -1}


def read_split(
    shard_store: ShardStore,
    parts: Sequence[PlannedPart],
    classes: Sequence[ClassEntry],
    passed_over: PassedOver,
) -> SplitRows:
    """Return the rows of a split from the summaries of its shards.

    Args:
        shard_store: that has the shards.
        parts: of the split.
        classes: every class by id.
        passed_over: counts the members of archives that were passed over.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    ids = ids_of(classes)
    counts, shards = SplitCounts(ids), []
    with ThreadPoolExecutor(SUMMARIES) as pool:
        for marker, summary in pool.map(partial(_summary, shard_store), parts):
            labels = counts.add(summary)
            passed_over.add_counts(summary.passed_over)
            if labels:
                shards.append(_Shard(marker, min(labels), max(labels)))
    bounds = partition_bounds(counts.rows.tolist(), counts.unlabelled)
    load = partial(_read_partition, shard_store, tuple(shards), ids, bounds)
    return SplitRows(counts, bounds, load)


def _count(load: Callable[[int], pa.Table], partitions: int, classes: int) -> RowCounts:
    return RowCounts.of(map(load, range(partitions)), classes)


def _summary(shard_store: ShardStore, planned: PlannedPart) -> tuple[Marker, PartSummary]:
    marker = shard_store.marker(planned.key)
    if marker is None:
        raise ShardError(
            f"{shard_store.uri(planned.key)}: the marker of {planned.part.name} vanished. "
            "Run again to recreate this shard."
        )
    return marker, PartSummary.from_json(shard_store.load(marker, SUMMARY))


def _read_partition(
    shard_store: ShardStore,
    shards: Sequence[_Shard],
    ids: Mapping[str, int],
    bounds: Sequence[tuple[int, int]],
    number: int,
) -> pa.Table:
    """Return the rows of a partition, sorted."""
    first, last = bounds[number]
    some = [shard for shard in shards if shard.first < last and first <= shard.last]
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda shard: _rows_of(shard_store, shard, ids, first, last), some))
    whole = pa.concat_tables([SCHEMA.empty_table(), *tables])
    return whole.sort_by([(name, "ascending") for name in ORDER]).combine_chunks()


def _rows_of(
    shard_store: ShardStore, shard: _Shard, ids: Mapping[str, int], first: int, last: int
) -> pa.Table:
    """Return the rows of a shard with a class from `first` up to `last`, not included."""
    data = shard_store.load(shard.marker, TABLE)
    with open_parquet(data, where=shard.marker.file(TABLE).path, columns=ROWS.names) as opened:
        table = opened.read()
    names = table["wnid"].combine_chunks().dictionary_encode()
    numbers = np.array([ids[name] for name in names.dictionary.to_pylist()], np.int32)
    labels = numbers[names.indices.to_numpy()] if len(numbers) else np.zeros(0, np.int32)
    table = table.add_column(0, SCHEMA.field("label"), pa.array(labels)).cast(SCHEMA)
    if first <= shard.first and shard.last < last:
        return table
    return table.filter(
        pc.and_(pc.greater_equal(table["label"], first), pc.less(table["label"], last))
    )
