"""Looking at every image of a dataset before any of them is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_core.config.data import DataConfig
from distill_core.data.contents import Contents
from distill_core.data.decoding.image import decode_image
from distill_core.data.readers.record import Reader, Record, Split
from distill_core.errors import DataError
from distill_core.progress import Progress, silent
from distill_core.sharding import ClassEntry
from distill_core.storage.digest import sha256

COLUMNS = (
    ("label", pa.int32()),  # id of the class; -1 where the image is of none
    ("wnid", pa.string()),  # empty where the image is of no class
    ("name", pa.string()),  # what the image is called within its class; may be empty
    ("uri", pa.string()),  # of its file, relative to the dataset's folder
    ("offset", pa.int64()),  # row in a Parquet file, else 0
    ("size", pa.int64()),  # bytes
    ("sha256", pa.string()),
    ("status", pa.string()),  # ok | bad
    ("reason", pa.string()),  # why it is bad, for people
)
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COLUMNS])
ORDER = ("label", "name", "sha256", "uri", "offset")
NOTHING = Contents()
CHUNK = 1024  # images held encoded at a time
THREADS = 2  # Pillow lets go of the interpreter while it decodes


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
        reader: its labels are places in `classes`.
        config: of the dataset.
        split: which one.
        classes: those that are there, in the order of the reader.
        decoded: contents that could be decoded before; they are not tried again.
        progress: told (images read, images in total).
    """
    names = [entry.wnid for entry in classes]
    records, total, done = reader.records(split, names), reader.count(split), 0
    parts: list[pa.RecordBatch] = []
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(islice(records, CHUNK)):
            share = -(-len(chunk) // THREADS)
            shares = [chunk[n : n + share] for n in range(0, len(chunk), share)]
            parts += pool.map(lambda some: _rows(some, config, classes, decoded), shares)
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
        reason = f"its label {record.label} is not one of {len(classes)} classes."
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
    """Refuse a class list that the configuration does not describe.

    Args:
        config: of the dataset.
        names: the classes that are there.
        classes: every class by id, holes included.

    Raises:
        DataError: none is there, two have one name, or there is another number of ids.
    """
    where = config.path or config.format
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: two classes are named {twice[0]!r}. Rename one.")
    if not names:
        raise DataError(f"{where}: no class at all, expected {config.num_classes}. Check the path.")
    if len(classes) != config.num_classes:
        holes = len(classes) - len(names)
        before = f" and {holes} removed before, whose ids stay taken" if holes else ""
        raise DataError(
            f"{where}: {len(names)} classes{before}, data.num_classes says {config.num_classes}. "
            "Correct one of them."
        )


def check_split(
    config: DataConfig, split: Split, table: pa.Table, classes: Sequence[ClassEntry]
) -> None:
    """Refuse a split with too many bad images, or with a class to train on that has none.

    Args:
        config: of the dataset.
        split: which one.
        table: its rows.
        classes: those that are there.

    Raises:
        DataError: naming the first bad image or the first empty class.
    """
    where = f"{config.path or config.format}: {split} split"
    bad = table.filter(pc.field("status") == "bad")
    if bad.num_rows > config.max_bad_fraction * table.num_rows:
        first = bad.slice(0, 1).to_pylist()[0]
        row = f" row {first['offset']}" if config.format == "parquet" else ""
        raise DataError(
            f"{where}: {bad.num_rows} of {table.num_rows} files cannot be used, more than "
            f"data.max_bad_fraction = {config.max_bad_fraction} allows. The first is "
            f"{first['uri']}{row}: {first['reason']} Mend or remove them, or allow more."
        )
    found = set(pc.unique(table.filter(pc.field("status") == "ok")["label"]).to_pylist())
    missing = [entry for entry in classes if entry.id not in found]
    if missing and (split == "train" or len(missing) == len(classes)):
        raise DataError(
            f"{where}: no readable image of class {missing[0].wnid!r} ({len(missing)} such "
            f"classes of {len(classes)}). Add images, or leave the class out and lower "
            "data.num_classes."
        )
