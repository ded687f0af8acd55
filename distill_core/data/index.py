"""The index of a dataset: one row per image, the class list and the content fingerprints.

It is built once; every later stage reads the index and never lists the dataset's folder; see
`index_files` for how it is stored. Rows are sorted by class, name and hash, so a class's images
have the same order however they are stored. The id is a hash of the rows and the classes, with
addresses relative to the dataset's folder: moving the folder does not change it, and one id never
stands for two layouts.

Class ids are append-only over the versions of a dataset, so labels in files that are reused never
change their meaning. A class that is removed leaves a hole and gets its id back if it returns; new
classes are appended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict

from distill_core.data.index_table import IndexTable, readable_rows
from distill_core.data.readers.record import Split
from distill_core.sharding import ClassEntry, class_list_hash
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store

IDENTITY = ("label", "name", "uri", "offset", "size", "sha256", "status")  # `reason` does not count
CONTENT = ("name", "size", "sha256")


@dataclass(frozen=True)
class DatasetIndex:
    """An ingested dataset; its tables have the columns of `index_table.SCHEMA`."""

    id: str
    classes: tuple[ClassEntry, ...]  # by id, holes included
    fingerprints: Mapping[str, str]  # by wnid: hash over its train images' CONTENT
    test_fingerprint: str
    tables: Mapping[Split, IndexTable]
    verify: str = field(default="full", compare=False)  # `data.verify` of its images
    versions: str = field(default="", compare=False)  # hash over the versions of its files
    of_parts: bool = field(default=True, compare=False)  # False: of version 0.1.0, without parts
    store: Store | None = field(default=None, compare=False)  # None: not committed
    packs: tuple[str, ...] = field(default=(), compare=False)  # see `Description`

    @property
    def train(self) -> pa.Table:
        """Return the rows of the training split."""
        return self.table("train")

    @property
    def test(self) -> pa.Table:
        """Return the rows of the test split."""
        return self.table("test")

    @property
    def class_hash(self) -> str:
        """Return the identity of the label space."""
        return class_list_hash(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the wnids of all classes, by id."""
        return tuple(entry.wnid for entry in self.classes)

    def table(self, split: Split) -> pa.Table:
        """Return the rows of a split, all in memory."""
        return self.tables[split].whole

    def rows_of(self, split: Split, label: int) -> np.ndarray:
        """Return the rows of a class's readable images in a split, (n,) int64."""
        return self.tables[split].rows_of(label)

    def readable(self, split: Split) -> np.ndarray:
        """Return the rows of every readable image in a split, (n,) int64."""
        return self.tables[split].readable()

    def count_readable(self, split: Split) -> int:
        """Return the number of readable images in a split."""
        return int(self.tables[split].counts.readable.sum())

    def class_sizes(self, split: Split) -> dict[str, int]:
        """Return the number of readable images of every class that is present, by wnid."""
        counts = self.tables[split].counts.readable
        return {c.wnid: int(counts[c.id]) for c in self.classes if not c.removed}

    def without_images(self, split: Split) -> tuple[str, ...]:
        """Return the classes without a readable image, removed ones included, by id."""
        sizes = self.class_sizes(split)
        return tuple(wnid for wnid in self.class_names if not sizes.get(wnid))


@dataclass(frozen=True)
class TableFile:
    """One file with rows of an index."""

    file: str  # its name
    sha256: str
    bytes: int = -1  # -1: written by an older version, which did not record it
    rows: int = -1  # -1: all rows of the split
    first: int = -1  # lowest class id; -1: begins with rows of no class
    last: int = -1  # class id after the highest; -1: all classes


@dataclass(frozen=True)
class Description:
    """``index.json`` as it is stored."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    classes: tuple[ClassEntry, ...]
    images: dict[Split, int]  # rows of each split
    duplicates: dict[str, int]
    fingerprints: dict[str, str]
    test_fingerprint: str
    files: dict[Split, TableFile] = field(default_factory=dict)  # of an older version
    partitions: dict[Split, tuple[TableFile, ...]] = field(default_factory=dict)
    rows: dict[Split, tuple[int, ...]] = field(default_factory=dict)  # of each class
    bad: dict[Split, tuple[int, ...]] = field(default_factory=dict)  # unreadable rows, by number
    verify: str = "full"  # see `DatasetIndex`; no part of the id
    versions: str = ""  # likewise; empty: written by an older version
    packs: tuple[str, ...] = ()  # keys of the parts that were read from compressed archives
    id: str = ""  # older versions have neither the id nor the digest
    record_sha256: str = ""

    def parts(self, split: Split) -> tuple[TableFile, ...]:
        """Return the files of a split, in the order of their rows."""
        return self.partitions[split] if self.partitions else (self.files[split],)


def number_classes(
    names: Sequence[str], known: Sequence[ClassEntry] = ()
) -> tuple[ClassEntry, ...]:
    """Return every class by id, holes included.

    Args:
        names: the classes that are present now, in the order of the dataset; unique.
        known: all classes of the version before, by id; none for a first version.
    """
    present, before = set(names), {entry.wnid for entry in known}
    kept = [replace(entry, removed=entry.wnid not in present) for entry in known]
    generation = 1 + max((entry.generation for entry in known), default=-1)
    added = [name for name in names if name not in before]
    return (*kept, *(ClassEntry(n, name, generation) for n, name in enumerate(added, len(kept))))


def build_index(
    name: str,
    classes: tuple[ClassEntry, ...],
    train: pa.Table | IndexTable,
    test: pa.Table | IndexTable,
) -> DatasetIndex:
    """Return the index of two tables, with its id and its fingerprints.

    Each partition is read once, so memory does not grow with the number of rows.
    """
    tables: dict[Split, IndexTable] = {
        "train": train if isinstance(train, IndexTable) else IndexTable.of(train, len(classes)),
        "test": test if isinstance(test, IndexTable) else IndexTable.of(test, len(classes)),
    }
    train_hashes, test_hashes = (_hashes(tables[s], len(classes)) for s in ("train", "test"))
    by_class, tests = train_hashes.of_classes, test_hashes.of_classes
    entries = [list(asdict(entry).values()) for entry in classes]
    return DatasetIndex(
        id=f"{name}-{_hash([entries, train_hashes.rows, test_hashes.rows])[:12]}",
        classes=classes,
        fingerprints={c.wnid: by_class[c.id] for c in classes if not c.removed},
        test_fingerprint=_hash([[c.wnid, tests[c.id]] for c in classes if not c.removed]),
        tables=tables,
        versions=_hash([train_hashes.versions, test_hashes.versions]),
    )


class _Hashes(NamedTuple):
    """The hashes of a table."""

    of_classes: list[str]  # over the contents of each class
    rows: str  # over all rows in their order
    versions: str  # over the versions of their files


def _hashes(table: IndexTable, count: int) -> _Hashes:
    """Return the hashes of a table, which is read once."""
    whole, of_classes = hashlib.sha256(), [hashlib.sha256().hexdigest()] * count
    versions = hashlib.sha256()
    for block in table.blocks():
        _update(whole, block, IDENTITY)
        versions.update("".join(f"{each}\n" for each in block["version"].to_pylist()).encode())
        readable = readable_rows(block)
        labels = readable["label"].to_numpy()
        present = np.unique(labels)
        starts = np.searchsorted(labels, [*present, count])
        for label, (first, last) in zip(present, pairwise(starts), strict=True):
            digest = hashlib.sha256()
            _update(digest, readable.slice(first, last - first), CONTENT)
            of_classes[label] = digest.hexdigest()
    return _Hashes(of_classes, whole.hexdigest(), versions.hexdigest())


def _update(digest: Any, table: pa.Table, columns: tuple[str, ...]) -> None:
    """Add some columns to a hash, row by row as `json.dumps` writes them."""
    for batch in table.select(columns).to_batches(max_chunksize=4096):
        rows = zip(*map(_as_json, batch.columns), strict=True)
        digest.update("".join([f"[{', '.join(row)}]" for row in rows]).encode())


def _as_json(column: pa.Array) -> list[str]:
    """Return each value of a column of integers or strings as JSON."""
    return [*map(str if pa.types.is_integer(column.type) else quoted, column.to_pylist())]


def _hash(parts: Any) -> str:
    return sha256(json.dumps(parts, separators=(",", ":")).encode())
