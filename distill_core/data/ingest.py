"""Ingestion: every image of a dataset is read, hashed and decoded before any of them is used.

The result is a `DatasetIndex`. A large dataset can have millions of images, so the contents that
a previous version has decoded are held as 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.config.split_rule import SplitRule, parse_rule
from distill_core.data.checks import check_classes, check_kept, check_split, untested_classes
from distill_core.data.decoding.image import decode_image
from distill_core.data.divide import DividedRows, divide_rows, renumber
from distill_core.data.index import DatasetIndex, build_index, number_classes
from distill_core.data.index_files import commit_index
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Reader, Record, Split
from distill_core.data.split_rules import count_notice
from distill_core.errors import DataError
from distill_core.progress import Notice, Progress, ignore_notice, silent
from distill_core.sharding import ClassEntry
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store

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
)
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COLUMNS])
ORDER = ("label", "name", "sha256", "uri", "offset")
HEX_DIGITS = 16  # of a sha256, kept as one 64-bit number; a collision is improbable enough
CHUNK = 1024  # encoded images held in memory at a time
THREADS = 2  # Pillow releases the GIL while it decodes
SPLITS: tuple[Split, ...] = ("train", "test")


class Contents:
    """A set of file contents that holds 8 bytes of each sha256.

    Args:
        digests: sha256 of the contents, in hex.
    """

    @classmethod
    def of(cls, index: DatasetIndex) -> Contents:
        """Return the contents of every readable image of both splits."""
        columns = (index.table(s)["sha256"].to_numpy()[index.readable(s)] for s in SPLITS)
        return cls(digest for column in columns for digest in column)

    def __init__(self, digests: Iterable[str] = ()) -> None:
        numbers = np.fromiter((int(digest[:HEX_DIGITS], 16) for digest in digests), np.uint64)
        self._sorted = np.sort(numbers)

    def __contains__(self, digest: str) -> bool:
        number = np.uint64(int(digest[:HEX_DIGITS], 16))
        place = int(np.searchsorted(self._sorted, number))
        return place < len(self._sorted) and bool(self._sorted[place] == number)


NOTHING = Contents()


def ingest(
    config: DataConfig,
    store: Store,
    previous: DatasetIndex | None = None,
    *,
    progress: Progress = silent,
    notice: Notice = ignore_notice,
) -> DatasetIndex:
    """Read, hash and decode-check every image, then commit the index; idempotent.

    Args:
        config: of the dataset.
        store: where the index is kept.
        previous: index of the version before; its class ids are kept, see `number_classes`, and
            images that it contains are hashed but not decoded again.
        progress: called with (images read, images in total).
        notice: called with sentences about what is passed over, before the images are read, and
            about classes without test images, after that.

    Raises:
        ConfigError: the dataset's address is wrong.
        DataError: a class has no training images, the class count differs from the configuration,
            an image has a label of no class, or too many images are unreadable.
    """
    reader = open_reader(config)
    rule = None if config.split is None else parse_rule(config.split)
    known = () if previous is None else previous.classes
    decoded = NOTHING if previous is None else Contents.of(previous)
    reading = _Reading(reader, config, decoded, progress, notice)
    names = reader.classes()
    if rule is None or not rule.drops_classes:
        check_classes(config, names, number_classes(names, known))
    if config.format == "classes":
        return _without_images(config, store, number_classes(names, known))
    if rule is None:
        reader.classes("test")  # a missing split ends this before any image is read
        classes = number_classes(names, known)
        present = named_entries(classes, names)
        tables = reading.tables(SPLITS, present)
    else:
        whole = reading.tables(("train",), number_classes(names), check=False)["train"]
        divided = divide_rows(whole, rule)
        names = tuple(name for name in names if name not in divided.dropped)
        classes = number_classes(names, known)
        check_classes(config, names, classes)
        present = named_entries(classes, names)
        tables = _divided_tables(config, rule, divided, present)
        if text := count_notice(rule, config.label_space, *(len(tables[s]) for s in SPLITS)):
            notice(text)
    if text := untested_classes(tables["test"], present):
        notice(text)
    index = build_index(config.name, classes, tables["train"], tables["test"])
    commit_index(store, index)
    return index


def _without_images(
    config: DataConfig, store: Store, classes: Sequence[ClassEntry]
) -> DatasetIndex:
    """Commit the index of a list of classes; those that are not kept are holes."""
    kept = check_kept(config, classes)
    entries = tuple(replace(entry, removed=entry.wnid not in kept) for entry in classes)
    empty = SCHEMA.empty_table()
    index = build_index(config.name, entries, empty, empty)
    commit_index(store, index)
    return index


def named_entries(classes: Sequence[ClassEntry], names: Sequence[str]) -> list[ClassEntry]:
    """Return the entries of some classes, in the order of their names."""
    by_name = {entry.wnid: entry for entry in classes}
    return [by_name[name] for name in names]


@dataclass(frozen=True)
class _Reading:
    """One pass over the images of a dataset."""

    reader: Reader
    config: DataConfig
    decoded: Contents
    progress: Progress
    notice: Notice

    def tables(
        self, splits: Sequence[Split], classes: Sequence[ClassEntry], *, check: bool = True
    ) -> dict[Split, pa.Table]:
        """Return the rows of some splits, each of them checked before the next one is read."""
        counts = {split: _count(self.reader, split) for split in splits}
        for split in splits:
            for text in self.reader.notices(split):
                self.notice(f"{split} split: {text}")
        tables, before, total = dict[Split, pa.Table](), 0, sum(counts.values())
        for split in splits:
            table = read_split(
                self.reader,
                self.config,
                split,
                classes,
                decoded=self.decoded,
                progress=partial(self._report, before, total),
            )
            if check:
                check_split(self.config, split, table, classes)
            tables[split] = table
            before += counts[split]
        return tables

    def _report(self, before: int, total: int, done: int, _: int) -> None:
        self.progress(before + done, total)


def _divided_tables(
    config: DataConfig, rule: SplitRule, divided: DividedRows, classes: Sequence[ClassEntry]
) -> dict[Split, pa.Table]:
    """Return the rows of both splits with the ids of the classes that are left, checked."""
    ids = {entry.wnid: entry.id for entry in classes}
    tables: dict[Split, pa.Table] = {
        "train": in_index_order(renumber(divided.train, ids)),
        "test": in_index_order(renumber(divided.test, ids)),
    }
    for split, table in tables.items():
        check_split(config, split, table, classes)
    return tables


def read_split(
    reader: Reader,
    config: DataConfig,
    split: Split,
    classes: Sequence[ClassEntry],
    *,
    decoded: Contents = NOTHING,
    progress: Progress = silent,
) -> pa.Table:
    """Read, hash and decode every image of a split; return a row for each, in index order.

    Args:
        reader: of the dataset; its labels are positions in `classes`.
        config: of the dataset.
        split: the split to read.
        classes: the classes that are present, in the order of the reader.
        decoded: contents that were decoded before; they are not decoded again.
        progress: called with (images read, images in total).
    """
    names = [entry.wnid for entry in classes]
    records = (record for part in reader.parts(split) for record in reader.records(part, names))
    total, done = _count(reader, split), 0
    parts: list[pa.RecordBatch] = []
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(islice(records, CHUNK)):
            share = -(-len(chunk) // THREADS)
            shares = [chunk[n : n + share] for n in range(0, len(chunk), share)]
            parts += pool.map(lambda part: _rows(part, config, classes, decoded), shares)
            done += len(chunk)
            progress(done, total)
    return in_index_order(pa.Table.from_batches(parts, schema=SCHEMA))


def in_index_order(table: pa.Table) -> pa.Table:
    """Return rows by class, name and content."""
    return table.sort_by([(name, "ascending") for name in ORDER]).combine_chunks()


def _count(reader: Reader, split: Split) -> int:
    return sum(max(0, part.count) for part in reader.parts(split))


def _rows(
    records: Sequence[Record],
    config: DataConfig,
    classes: Sequence[ClassEntry],
    decoded: Contents,
) -> pa.RecordBatch:
    rows = [_row(record, config, classes, decoded) for record in records]
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, kind) for c, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _row(
    record: Record, config: DataConfig, classes: Sequence[ClassEntry], decoded: Contents
) -> tuple[Any, ...]:
    known = record.label >= 0
    label, wnid = (classes[record.label].id, classes[record.label].wnid) if known else (-1, "")
    digest, reason = sha256(record.data), record.problem
    if not reason and digest not in decoded:
        reason = _undecodable(record, config)
    return (
        label,
        wnid,
        record.name,
        record.uri,
        record.offset,
        len(record.data),
        digest,
        "bad" if reason else "ok",
        reason,
    )


def _undecodable(record: Record, config: DataConfig) -> str:
    """Return why an image cannot be decoded, as a sentence; empty when it can."""
    try:
        decode_image(record.data, config, where="")
    except DataError as error:
        return str(error).removeprefix(": ")
    return ""
