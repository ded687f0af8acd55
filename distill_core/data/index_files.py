"""The files of an index: ``datasets/<id>/index/`` has a table per split, ``index.json`` the rest.

``index.json`` is created last. It states the id, the sha256 and the size of both tables and a
digest of itself.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, TypeAdapter

from distill_core.data.index import IDENTITY, DatasetIndex, build_index
from distill_core.data.readers.record import Split
from distill_core.errors import DataError
from distill_core.sharding import ClassEntry
from distill_core.storage.digest import sha256
from distill_core.storage.parquet import open_parquet
from distill_core.storage.records import parse_json, seal_json
from distill_core.storage.store import Store

SPLITS: tuple[Split, ...] = ("train", "test")
REMEDY = "Delete it and run `distill resume`, which ingests the dataset again."


@dataclass(frozen=True)
class TableFile:
    """One table of an index."""

    file: str  # its name
    sha256: str
    bytes: int = -1  # -1: written by an older version, which did not record it


@dataclass(frozen=True)
class _Description:
    """``index.json`` as it is stored."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    classes: tuple[ClassEntry, ...]
    images: dict[Split, int]  # rows of each table
    duplicates: dict[str, int]
    fingerprints: dict[str, str]
    test_fingerprint: str
    files: dict[Split, TableFile]
    id: str = ""  # older versions have neither the id nor the digest
    record_sha256: str = ""


_DESCRIPTION: TypeAdapter[_Description] = TypeAdapter(_Description)


class StoredTables(Mapping[Split, pa.Table]):
    """The tables of a stored index, each read and hashed when it is first used."""

    def __init__(self, store: Store, dataset: str, description: _Description) -> None:
        self._store, self._dataset, self._description = store, dataset, description
        self._read = lru_cache(self._load)

    def __getitem__(self, split: Split) -> pa.Table:
        return self._read(split)

    def __iter__(self) -> Iterator[Split]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)

    def _load(self, split: Split) -> pa.Table:
        stated = self._description.files[split]
        path = _table_path(self._dataset, stated.file)
        data, where = self._store.read(path), self._store.uri(path)
        if sha256(data) != stated.sha256:
            raise DataError(
                f"{where}: {len(data)} bytes do not match index.json. Delete the folder "
                f"{self._store.uri(f'datasets/{self._dataset}')} and run `distill resume`."
            )
        with open_parquet(data, where=where, columns=IDENTITY) as opened:
            table = opened.read()
        if table.num_rows != self._description.images[split]:
            raise DataError(
                f"{where}: {table.num_rows} rows, index.json states "
                f"{self._description.images[split]}. {REMEDY}"
            )
        return table


def open_index(store: Store, dataset: str) -> DatasetIndex:
    """Return a committed index whose tables are read when they are first used.

    Raises:
        DataError: there is no index under that id, its description is damaged, or a table is
            missing or has another size.
    """
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
    return DatasetIndex(
        id=dataset,
        classes=stored.classes,
        fingerprints=stored.fingerprints,
        test_fingerprint=stored.test_fingerprint,
        tables=StoredTables(store, dataset, stored),
    )


def load_index(store: Store, dataset: str) -> DatasetIndex:
    """Return a committed index, its tables read and hashed.

    Raises:
        DataError: there is no index under that id, or it is damaged.
    """
    index = open_index(store, dataset)
    for split in SPLITS:
        index.table(split)
    return index


def check_index(store: Store, dataset: str) -> None:
    """Check that an index has the id and the fingerprints that follow from its tables.

    Raises:
        DataError: it is damaged, or states another id or fingerprint.
    """
    index = load_index(store, dataset)
    name = dataset.rpartition("-")[0]
    actual = build_index(name, index.classes, index.train, index.test)
    for fact in ("id", "fingerprints", "test_fingerprint"):
        if getattr(actual, fact) != getattr(index, fact):
            raise DataError(
                f"{store.uri(description_path(dataset))}: its {fact} does not follow from its "
                f"tables and classes. {REMEDY}"
            )


def commit_index(store: Store, index: DatasetIndex) -> None:
    """Write the tables under content-based names, then index.json, unless they exist already.

    Files of this index that were damaged or deleted since are written again.
    """
    if _is_sound(store, index.id):
        return
    files = {}
    for split in SPLITS:
        stream = io.BytesIO()
        pq.write_table(index.table(split), stream, compression="zstd", write_page_checksum=True)
        data = stream.getvalue()
        digest = sha256(data)
        # Another version of Arrow may write other bytes for the same rows; both may exist here.
        files[split] = TableFile(f"{split}-{digest[:16]}.parquet", digest, len(data))
        store.put(_table_path(index.id, files[split].file), data)
    description = {
        "id": index.id,
        "classes": [asdict(entry) for entry in index.classes],
        "images": {split: index.table(split).num_rows for split in SPLITS},
        "duplicates": index.duplicates(),
        "fingerprints": dict(index.fingerprints),
        "test_fingerprint": index.test_fingerprint,
        "files": {split: asdict(file) for split, file in files.items()},
    }
    store.put(description_path(index.id), seal_json(description))  # equal, whoever writes it


def _is_sound(store: Store, dataset: str) -> bool:
    if not store.exists(description_path(dataset)):
        return False
    try:
        load_index(store, dataset)
    except DataError:
        return False
    return True


def description_path(dataset: str) -> str:
    """Return the path of the description of a dataset."""
    return f"datasets/{dataset}/index.json"


def _check_tables(store: Store, dataset: str, stored: _Description) -> None:
    """Check that both tables exist and have the sizes that the description states."""
    sizes = {file.path: file.bytes for file in store.files(f"datasets/{dataset}/index")}
    for file in stored.files.values():
        path = _table_path(dataset, file.file)
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


def _table_path(dataset: str, file: str) -> str:
    return f"datasets/{dataset}/index/{file}"
