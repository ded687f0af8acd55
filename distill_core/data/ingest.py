"""Ingestion: every image of a dataset is read, hashed and decoded before any of them is used.

The result is a `DatasetIndex`. A large dataset can have millions of images, so the contents that
a previous version has decoded are held as 8 bytes each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_core.config.data import DataConfig
from distill_core.data.decoding.image import decode_image
from distill_core.data.index import DatasetIndex, build_index, number_classes
from distill_core.data.index_files import commit_index
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Reader, Record, Split
from distill_core.errors import DataError
from distill_core.progress import Progress, silent
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


class Contents:
    """A set of file contents that holds 8 bytes of each sha256.

    Args:
        digests: sha256 of the contents, in hex.
    """

    @classmethod
    def of(cls, index: DatasetIndex) -> Contents:
        """Return the contents of every readable image of both splits."""
        splits: tuple[Split, ...] = ("train", "test")
        columns = (index.table(s)["sha256"].to_numpy()[index.readable(s)] for s in splits)
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
) -> DatasetIndex:
    """Read, hash and decode-check every image, then commit the index; idempotent.

    Args:
        config: of the dataset.
        store: where the index is kept.
        previous: index of the version before; its class ids are kept, see `number_classes`, and
            images that it contains are hashed but not decoded again.
        progress: called with (images read, images in total).

    Raises:
        ConfigError: the dataset's address is wrong.
        DataError: a class has no images, the class count differs from the configuration, or too
            many images are unreadable.
    """
    reader = open_reader(config)
    names = reader.classes()
    classes = number_classes(names, () if previous is None else previous.classes)
    check_classes(config, names, classes)
    reader.classes("test")  # a missing split ends this before any image is read
    by_name = {entry.wnid: entry for entry in classes}
    present = [by_name[name] for name in names]
    decoded = NOTHING if previous is None else Contents.of(previous)
    counts = {"train": reader.count("train"), "test": reader.count("test")}
    total = sum(counts.values())

    def split_table(split: Split, before: int) -> pa.Table:
        def count_on(done: int, _: int) -> None:
            progress(before + done, total)

        table = read_split(reader, config, split, present, decoded=decoded, progress=count_on)
        check_split(config, split, table, present)
        return table

    train, test = split_table("train", 0), split_table("test", counts["train"])
    index = build_index(config.name, classes, train, test)
    commit_index(store, index)
    return index


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
    records, total, done = reader.records(split, names), reader.count(split), 0
    parts: list[pa.RecordBatch] = []
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(islice(records, CHUNK)):
            share = -(-len(chunk) // THREADS)
            shares = [chunk[n : n + share] for n in range(0, len(chunk), share)]
            parts += pool.map(lambda part: _rows(part, config, classes, decoded), shares)
            done += len(chunk)
            progress(done, total)
    table = pa.Table.from_batches(parts, schema=SCHEMA)
    return table.sort_by([(name, "ascending") for name in ORDER]).combine_chunks()


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
    known = 0 <= record.label < len(classes)
    label, wnid = (classes[record.label].id, classes[record.label].wnid) if known else (-1, "")
    digest, reason = sha256(record.data), record.problem
    if not reason and not known:
        reason = f"its label {record.label} is not one of the {len(classes)} classes."
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


def check_classes(config: DataConfig, names: Sequence[str], classes: Sequence[ClassEntry]) -> None:
    """Check that the classes found are those that the configuration describes.

    Args:
        config: of the dataset.
        names: the classes that are present.
        classes: every class by id, holes included.

    Raises:
        DataError: there is no class, two have the same name, or the number of ids differs from
            `data.num_classes`.
    """
    where = config.path or config.format
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{where}: two classes are named {twice[0]!r}, expected unique names. Rename one."
        )
    if not names:
        raise DataError(
            f"{where}: found no classes, expected {config.num_classes}. Check the path."
        )
    if len(classes) != config.num_classes:
        holes = len(classes) - len(names)
        before = f" and {holes} removed earlier, whose ids stay reserved" if holes else ""
        raise DataError(
            f"{where}: found {len(names)} classes{before}, but data.num_classes is "
            f"{config.num_classes}. Correct the dataset or data.num_classes."
        )


def check_split(
    config: DataConfig, split: Split, table: pa.Table, classes: Sequence[ClassEntry]
) -> None:
    """Check that a split has few enough bad images and, for training, images of every class.

    Args:
        config: of the dataset.
        split: the split to check.
        table: its rows.
        classes: the classes that are present.

    Raises:
        DataError: names the first bad image or the first empty class.
    """
    where = f"{config.path or config.format}: {split} split"
    bad = table.filter(pc.field("status") == "bad")
    if bad.num_rows > config.max_bad_fraction * table.num_rows:
        first = bad.slice(0, 1).to_pylist()[0]
        row = f" row {first['offset']}" if config.format == "parquet" else ""
        raise DataError(
            f"{where}: {bad.num_rows} of {table.num_rows} files cannot be used, more than "
            f"data.max_bad_fraction = {config.max_bad_fraction} allows. The first is "
            f"{first['uri']}{row}: {first['reason']} Repair or remove them, or raise the limit."
        )
    labels = set(pc.unique(table.filter(pc.field("status") == "ok")["label"]).to_pylist())
    missing = [entry for entry in classes if entry.id not in labels]
    if missing and (split == "train" or len(missing) == len(classes)):
        raise DataError(
            f"{where}: no readable image of class {missing[0].wnid!r} (one of "
            f"{len(missing)} such classes out of {len(classes)}). Add images, or remove the class "
            "and lower data.num_classes."
        )
