"""The files of an index: ``datasets/<id>/index/`` has its rows, ``index.json`` the rest.

The rows of a split are divided into partitions, each with the rows of consecutive classes.
``index.json`` is created last. It states the id, the class list, the rows of each class, the
classes, sha256 and size of each partition, and a digest of itself. So a planner reads it alone,
and a worker the partitions of its classes. Indexes of version 0.1.0 have one table per split and
no counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from distill_core.data.index import (
    IDENTITY,
    DatasetIndex,
    Description,
    TableFile,
    build_index,
)
from distill_core.data.index_table import SCHEMA, IndexTable, RowCounts
from distill_core.data.readers.record import Split
from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.parquet import open_parquet
from distill_core.storage.records import parse_json
from distill_core.storage.store import Store

SPLITS: tuple[Split, ...] = ("train", "test")
REMEDY = "Delete it and run `distill resume`, which ingests the dataset again."


_DESCRIPTION: TypeAdapter[Description] = TypeAdapter(Description)


def load_partition(store: Store, dataset: str, files: Sequence[TableFile], number: int) -> pa.Table:
    """Return the rows of a file, hashed.

    Args:
        store: that has the index.
        dataset: its id.
        files: of a split.
        number: of the file among them.

    Raises:
        DataError: it is damaged, or is not what the description states.
    """
    stated = files[number]
    path = table_path(dataset, stated.file)
    data, where = store.read(path), store.uri(path)
    if sha256(data) != stated.sha256:
        raise DataError(
            f"{where}: {len(data)} bytes do not match index.json. Delete the folder "
            f"{store.uri(f'datasets/{dataset}')} and run `distill resume`."
        )
    with open_parquet(data, where=where, columns=IDENTITY) as opened:
        table = opened.read()
    if stated.rows not in (-1, table.num_rows):
        raise DataError(
            f"{where}: {table.num_rows} rows, index.json states {stated.rows}. {REMEDY}"
        )
    if not _is_within(table, stated):
        raise DataError(
            f"{where}: has other classes than those from {stated.first} to {stated.last - 1} that "
            f"index.json states. {REMEDY}"
        )
    if "version" not in table.column_names:
        table = table.append_column(SCHEMA.field("version"), pa.repeat("", table.num_rows))
    return table


def _is_within(table: pa.Table, stated: TableFile) -> bool:
    """Return whether the classes of a partition, which are sorted, are those stated."""
    if stated.last < 0 or not table.num_rows:
        return True
    first, last = table["label"][0].as_py(), table["label"][-1].as_py()
    return bool(stated.first <= first and last < stated.last)


def _counts(stored: Description, split: Split) -> RowCounts:
    by_class = np.array(stored.rows[split], np.int64)
    unlabelled = stored.images[split] - int(by_class.sum())
    return RowCounts(unlabelled, by_class, np.array(stored.bad[split], np.int64))


def _stored_table(store: Store, dataset: str, stored: Description, split: Split) -> IndexTable:
    files = stored.parts(split)
    load = partial(load_partition, store, dataset, files)
    if stored.partitions:
        counts = partial(_counts, stored, split)
        return IndexTable([(file.first, file.last) for file in files], counts, load)
    read = partial(_count, load, len(stored.classes), stored.images[split])
    return IndexTable([(-1, len(stored.classes))], read, load)


def _count(load: Callable[[int], pa.Table], classes: int, rows: int) -> RowCounts:
    """Return the counts of a table of an older version."""
    counts = RowCounts.of(iter([load(0)]), classes)
    if counts.rows != rows:
        raise DataError(
            f"an index table has {counts.rows} rows, index.json states {rows}. {REMEDY}"
        )
    return counts


def open_index(store: Store, dataset: str) -> DatasetIndex:
    """Return a committed index whose rows are read when they are first used.

    Raises:
        DataError: there is no index under that id, its description is damaged, or a table is
            missing or has another size.
    """
    stored = _read_description(store, dataset)
    return DatasetIndex(
        id=dataset,
        classes=stored.classes,
        fingerprints=stored.fingerprints,
        test_fingerprint=stored.test_fingerprint,
        tables={split: _stored_table(store, dataset, stored, split) for split in SPLITS},
        verify=stored.verify,
        versions=stored.versions,
        of_parts=bool(stored.partitions),
        store=store,
        packs=stored.packs,
    )


def _read_description(store: Store, dataset: str) -> Description:
    path = description_path(dataset)
    where = store.uri(path)
    stored = parse_json(
        _DESCRIPTION,
        store.read(path),
        where=where,
        what="the description of a dataset",
        remedy=REMEDY,
    )
    if stored.id not in ("", dataset):
        raise DataError(f"{where}: describes dataset {stored.id}, expected {dataset}. {REMEDY}")
    _check_tables(store, dataset, stored)
    return stored


def load_index(store: Store, dataset: str) -> DatasetIndex:
    """Return a committed index, after each of its files was read and hashed.

    Raises:
        DataError: there is no index under that id, or it is damaged.
    """
    index = open_index(store, dataset)
    for split in SPLITS:
        for _ in index.tables[split].blocks():
            pass
    return index


def check_index(store: Store, dataset: str) -> None:
    """Check that an index has the id and the fingerprints that follow from its tables.

    Raises:
        DataError: it is damaged, or states another id or fingerprint.
    """
    index = load_index(store, dataset)
    name = dataset.rpartition("-")[0]
    actual = build_index(name, index.classes, index.tables["train"], index.tables["test"])
    wrong = [
        fact
        for fact in ("id", "fingerprints", "test_fingerprint")
        if getattr(actual, fact) != getattr(index, fact)
    ]
    if index.versions and index.versions != actual.versions:
        wrong.append("hash of the versions of its files")
    for split in SPLITS:
        table = index.tables[split]
        ends = [-1, *(last for _, last in table.bounds)]
        if table.bounds != tuple(pairwise(ends)) or ends[-1] != len(index.classes):
            wrong.append(f"division of the {split} rows into classes")
        counts = RowCounts.of(table.blocks(), len(index.classes))
        same = np.array_equal(counts.by_class, table.counts.by_class)
        if not same or not np.array_equal(counts.bad, table.counts.bad):
            wrong.append(f"count of {split} rows")
    if wrong:
        raise DataError(
            f"{store.uri(description_path(dataset))}: its {wrong[0]} does not follow from its "
            f"tables and classes. {REMEDY}"
        )


def description_path(dataset: str) -> str:
    """Return the path of the description of a dataset."""
    return f"datasets/{dataset}/index.json"


def _check_tables(store: Store, dataset: str, stored: Description) -> None:
    """Check that the tables exist and have the sizes that the description states."""
    sizes = {file.path: file.bytes for file in store.files(f"datasets/{dataset}/index")}
    for file in (file for split in SPLITS for file in stored.parts(split)):
        path = table_path(dataset, file.file)
        if path not in sizes:
            raise DataError(
                f"{store.uri(path)}: no such object, but index.json lists it. Delete the folder "
                f"{store.uri(f'datasets/{dataset}')} and run `distill resume`."
            )
        if file.bytes not in (-1, sizes[path]):
            raise DataError(
                f"{store.uri(path)}: {sizes[path]} bytes, index.json states {file.bytes}. Delete "
                f"the folder {store.uri(f'datasets/{dataset}')} and run `distill resume`."
            )


def table_path(dataset: str, file: str) -> str:
    """Return the path of a file with rows of a dataset."""
    return f"datasets/{dataset}/index/{file}"
