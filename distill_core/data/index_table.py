"""The rows of one split of an index, in blocks of classes that are read when they are needed.

Rows are sorted by class, so the number of rows of each class and the numbers of the unreadable rows
give the rows of any class without a look at the rows themselves. Rows of no class come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = (
    ("label", pa.int32()),  # id of the class; -1 if the image belongs to no class
    ("wnid", pa.string()),  # empty if the image belongs to no class
    ("name", pa.string()),  # of the image within its class; may be empty
    ("uri", pa.string()),  # of its file, relative to the dataset's folder
    ("offset", pa.int64()),  # row in a Parquet file; 0 in other formats
    ("size", pa.int64()),  # bytes
    ("sha256", pa.string()),
    ("status", pa.string()),  # ok | bad
    ("reason", pa.string()),  # of status bad, as a sentence
    # Etag or times of its file, if the file holds this image alone; the key of the part that read
    # it, if its archive is compressed
    ("version", pa.string()),
)
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COLUMNS])
ORDER = ("label", "name", "sha256", "uri", "offset")
# Of one partition: 100 classes of ImageNet-21K. Planning reads none, a worker those of its classes.
PARTITION_ROWS = 2**16


@dataclass(frozen=True)
class RowCounts:
    """The number of rows of each class of a split, and which rows are unreadable."""

    unlabelled: int  # rows of no class, which come first; all of them are unreadable
    by_class: np.ndarray  # (classes,) int64, unreadable rows included
    bad: np.ndarray  # numbers of the unreadable rows, ascending int64

    @classmethod
    def of(cls, tables: Iterator[pa.Table], classes: int) -> RowCounts:
        """Return the counts of consecutive tables with the columns label and status."""
        by_class, bad = np.zeros(classes, np.int64), [np.zeros(0, np.int64)]
        rows = 0
        for table in tables:
            labels = table["label"].to_numpy()
            by_class += np.bincount(labels[labels >= 0], minlength=classes)
            bad.append(rows + np.flatnonzero(~_is_ok(table)))
            rows += table.num_rows
        return cls(rows - int(by_class.sum()), by_class, np.concatenate(bad))

    @property
    def rows(self) -> int:
        """Return the number of rows of the split."""
        return self.unlabelled + int(self.by_class.sum())

    @cached_property
    def starts(self) -> np.ndarray:
        """Return the first row of each class, and the number of rows, (classes + 1,) int64."""
        return self.unlabelled + np.concatenate([[0], np.cumsum(self.by_class)])

    @cached_property
    def readable(self) -> np.ndarray:
        """Return the number of readable rows of each class, (classes,) int64."""
        before = np.searchsorted(self.bad, self.starts)
        counts: np.ndarray = self.by_class - np.diff(before)
        return counts


def partition_bounds(by_class: Sequence[int], unlabelled: int = 0) -> list[tuple[int, int]]:
    """Return the blocks of classes of partitions: the first id, and the id after the last.

    A class is never divided, so its images can be sorted in memory. The first block begins at -1,
    the id of rows of no class.

    Args:
        by_class: rows of each class.
        unlabelled: rows of no class.
    """
    bounds, first, rows = [], -1, unlabelled
    for label, count in enumerate(by_class):
        if rows and rows + count > PARTITION_ROWS:
            bounds.append((first, label))
            first, rows = label, 0
        rows += count
    return [*bounds, (first, len(by_class))]


class IndexTable:
    """The rows of a split.

    Args:
        bounds: classes of each partition, see `partition_bounds`.
        counts: rows of each class; called once, when they are needed.
        load: reads a partition by its number; a partition that rows were taken from is kept.
        rows: number of rows, where it is known before the counts; 0: it is not.
    """

    def __init__(
        self,
        bounds: Sequence[tuple[int, int]],
        counts: Callable[[], RowCounts],
        load: Callable[[int], pa.Table],
        *,
        rows: int = 0,
    ) -> None:
        self.bounds, self.known_rows = tuple(bounds), rows
        self._make_counts, self._load = counts, load
        self._held: dict[int, pa.Table] = {}

    @classmethod
    def of(cls, table: pa.Table, classes: int) -> IndexTable:
        """Return a table in memory, sorted by `ORDER`, as partitions of it."""
        counts = RowCounts.of(iter([table]), classes)
        bounds = partition_bounds(counts.by_class.tolist(), counts.unlabelled)
        places = np.searchsorted(table["label"].to_numpy(), [first for first, _ in bounds])
        ranges = list(pairwise([*places.tolist(), table.num_rows]))
        return cls(bounds, partial(_same, counts), partial(_slice, table, ranges))

    @cached_property
    def counts(self) -> RowCounts:
        """Return the number of rows of each class."""
        return self._make_counts()

    @property
    def num_rows(self) -> int:
        """Return the number of rows."""
        return self.counts.rows

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the partitions one after the other; none is kept."""
        for number in range(len(self.bounds)):
            yield self._load(number)
            pa.default_memory_pool().release_unused()  # Arrow keeps what it has freed

    @cached_property
    def whole(self) -> pa.Table:
        """Return all rows as one table."""
        return pa.concat_tables(list(self.blocks())).combine_chunks()

    def of_classes(self, labels: Sequence[int]) -> Iterator[pa.Table]:
        """Yield the partitions with some classes; none is kept."""
        for number, (first, last) in enumerate(self.bounds):
            if any(first <= label < last for label in labels):
                yield self._load(number)

    def take(self, rows: np.ndarray) -> pa.Table:
        """Return some rows, in their order; partitions without any of them are not read."""
        places = np.searchsorted(self._firsts, rows, side="right") - 1
        numbers = np.unique(places)
        order = np.argsort(places, kind="stable")
        parts = [
            self._hold(int(number)).take(pa.array(rows[places == number] - self._firsts[number]))
            for number in numbers
        ]
        if len(parts) < 2:
            return parts[0] if parts else self._hold(0).slice(0, 0)
        return pa.concat_tables(parts).take(pa.array(np.argsort(order, kind="stable")))

    def rows_of(self, label: int) -> np.ndarray:
        """Return the readable rows of a class, (n,) int64."""
        if label + 1 >= len(self.counts.starts):
            return np.zeros(0, np.int64)
        first, last = self.counts.starts[[label, label + 1]]
        return self._readable_between(int(first), int(last))

    def readable(self) -> np.ndarray:
        """Return all readable rows, (n,) int64."""
        return self._readable_between(0, self.counts.rows)

    def labels(self) -> np.ndarray:
        """Return the class of each readable row, (n,) int64."""
        return np.repeat(np.arange(len(self.counts.by_class)), self.counts.readable)

    def _hold(self, number: int) -> pa.Table:
        """Return a partition, which is read once."""
        if number not in self._held:
            self._held[number] = self._load(number)
        return self._held[number]

    def _readable_between(self, first: int, last: int) -> np.ndarray:
        bad = self.counts.bad
        inside = bad[np.searchsorted(bad, first) : np.searchsorted(bad, last)]
        return np.delete(np.arange(first, last), inside - first)

    @cached_property
    def _firsts(self) -> np.ndarray:
        """Return the first row of each partition."""
        starts = self.counts.starts
        return np.array([0 if first < 0 else starts[first] for first, _ in self.bounds])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexTable):
            return NotImplemented
        return bool(self.whole.equals(other.whole))

    __hash__ = None  # type: ignore[assignment]


def readable_rows(table: pa.Table) -> pa.Table:
    """Return the readable rows of a table."""
    return table.filter(pc.equal(table["status"], "ok"))


def _is_ok(table: pa.Table) -> np.ndarray:
    flags: np.ndarray = pc.equal(table["status"], "ok").to_numpy()
    return flags


def _same(counts: RowCounts) -> RowCounts:
    return counts


def _slice(table: pa.Table, ranges: Sequence[tuple[int, int]], number: int) -> pa.Table:
    first, last = ranges[number]
    return table.slice(first, last - first)
