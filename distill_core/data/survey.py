"""Looking at every image of a dataset before any of them is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_core.config.schema import DataConfig
from distill_core.data.decode import decode_image
from distill_core.data.records import Reader, Record, Split
from distill_core.errors import DataError
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256

COLUMNS = (
    ("label", pa.int32()),  # -1 where the file gives none
    ("wnid", pa.string()),  # empty where the label is of no class
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
CHUNK = 1024  # images held encoded at a time
THREADS = 2  # Pillow lets go of the interpreter while it decodes


def read_split(
    reader: Reader,
    config: DataConfig,
    split: Split,
    classes: Sequence[str],
    *,
    progress: Progress = silent,
) -> pa.Table:
    """Read, hash and decode every image of a split; return a row for each, in index order."""
    records, total, done = reader.records(split, classes), reader.count(split), 0
    parts: list[pa.RecordBatch] = []
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(islice(records, CHUNK)):
            share = -(-len(chunk) // THREADS)
            shares = [chunk[n : n + share] for n in range(0, len(chunk), share)]
            parts += pool.map(lambda some: _rows(some, config, classes), shares)
            done += len(chunk)
            progress(done, total)
    table = pa.Table.from_batches(parts, schema=SCHEMA)
    return table.sort_by([(name, "ascending") for name in ORDER]).combine_chunks()


def _rows(records: Sequence[Record], config: DataConfig, classes: Sequence[str]) -> pa.RecordBatch:
    reasons = [_reason(record, config, classes) for record in records]
    rows = [
        (
            record.label,
            classes[record.label] if 0 <= record.label < len(classes) else "",
            record.name,
            record.uri,
            record.offset,
            len(record.data),
            sha256(record.data),
            "bad" if reason else "ok",
            reason,
        )
        for record, reason in zip(records, reasons, strict=True)
    ]
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, kind) for c, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _reason(record: Record, config: DataConfig, classes: Sequence[str]) -> str:
    """Return why an image cannot be used, as a sentence; empty when it can."""
    if record.problem:
        return record.problem
    if not 0 <= record.label < len(classes):
        return f"its label {record.label} is not one of {len(classes)} classes."
    try:
        decode_image(record.data, config, where="")
    except DataError as error:
        return str(error).removeprefix(": ")
    return ""


def check_classes(config: DataConfig, classes: Sequence[str]) -> None:
    """Refuse a class list that the configuration does not describe.

    Raises:
        DataError: two classes of one name, or another number of them.
    """
    where = config.path or config.format
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise DataError(f"{where}: two classes are named {twice[0]!r}. Rename one.")
    if len(classes) != config.num_classes:
        raise DataError(
            f"{where}: {len(classes)} classes, data.num_classes says {config.num_classes}. "
            "Correct one of them."
        )


def check_split(config: DataConfig, split: Split, table: pa.Table, classes: Sequence[str]) -> None:
    """Refuse a split with too many bad images, or with a class to train on that has none.

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
    found = pc.unique(table.filter(pc.field("status") == "ok")["label"]).to_numpy()
    missing = np.setdiff1d(np.arange(len(classes)), found)
    if len(missing) and (split == "train" or len(found) == 0):
        raise DataError(
            f"{where}: no readable image of class {classes[missing[0]]!r} ({len(missing)} such "
            f"classes of {len(classes)}). Add images, or leave the class out and lower "
            "data.num_classes."
        )
