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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_core.data.readers.record import Split
from distill_core.sharding import ClassEntry, class_list_hash
from distill_core.storage.digest import sha256

IDENTITY = ("label", "name", "uri", "offset", "size", "sha256", "status")  # `reason` does not count
CONTENT = ("name", "size", "sha256")


@dataclass(frozen=True)
class DatasetIndex:
    """An ingested dataset; its tables have the columns of `ingest.SCHEMA`."""

    id: str
    classes: tuple[ClassEntry, ...]  # by id, holes included
    fingerprints: Mapping[str, str]  # by wnid: hash over its train images' CONTENT
    test_fingerprint: str
    tables: Mapping[Split, pa.Table]

    @property
    def train(self) -> pa.Table:
        """Return the rows of the training split."""
        return self.tables["train"]

    @property
    def test(self) -> pa.Table:
        """Return the rows of the test split."""
        return self.tables["test"]

    @property
    def class_hash(self) -> str:
        """Return the identity of the label space."""
        return class_list_hash(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the wnids of all classes, by id."""
        return tuple(entry.wnid for entry in self.classes)

    def table(self, split: Split) -> pa.Table:
        """Return the rows of a split."""
        return self.tables[split]

    def rows_of(self, split: Split, label: int) -> np.ndarray:
        """Return the rows of a class's readable images in a split, (n,) int64."""
        rows = self.readable(split)
        first, last = np.searchsorted(self._labels_of(split)[rows], [label, label + 1])
        return rows[first:last]

    def readable(self, split: Split) -> np.ndarray:
        """Return the rows of every readable image in a split, (n,) int64."""
        if split not in self._readable:
            self._readable[split] = _ok_rows(self.tables[split])
        return self._readable[split]

    def class_sizes(self, split: Split) -> dict[str, int]:
        """Return the number of readable images of every class that is present, by wnid."""
        labels = self._labels_of(split)[self.readable(split)]
        counts = np.bincount(labels, minlength=len(self.classes))
        return {c.wnid: int(counts[c.id]) for c in self.classes if not c.removed}

    def without_images(self, split: Split) -> tuple[str, ...]:
        """Return the classes without a readable image, removed ones included, by id."""
        sizes = self.class_sizes(split)
        return tuple(wnid for wnid in self.class_names if not sizes.get(wnid))

    def duplicates(self) -> dict[str, int]:
        """Return the number of contents with several classes, and of those in both splits.

        Duplicates are kept; a large number indicates a mistake in the dataset.
        """
        train, test = (t.filter(pc.field("status") == "ok") for t in (self.train, self.test))
        labels = train.group_by("sha256").aggregate([("label", "count_distinct")])
        several = pc.sum(pc.greater(labels["label_count_distinct"], 1)).as_py() or 0
        leaked = pc.sum(pc.is_in(pc.unique(test["sha256"]), train["sha256"])).as_py() or 0
        return {"classes": several, "splits": leaked}

    @cached_property
    def _readable(self) -> dict[Split, np.ndarray]:
        """Return the rows of the splits that were asked for so far."""
        return {}

    @cached_property
    def _labels(self) -> dict[Split, np.ndarray]:
        """Return the labels of the splits that were asked for so far."""
        return {}

    def _labels_of(self, split: Split) -> np.ndarray:
        if split not in self._labels:
            self._labels[split] = self.tables[split]["label"].to_numpy()
        return self._labels[split]


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
    name: str, classes: tuple[ClassEntry, ...], train: pa.Table, test: pa.Table
) -> DatasetIndex:
    """Return the index of two tables, with its id and its fingerprints."""
    by_class = [_digest(part, CONTENT) for part in _by_label(train, len(classes))]
    tests = [_digest(part, CONTENT) for part in _by_label(test, len(classes))]
    entries = [list(asdict(entry).values()) for entry in classes]
    identity = [entries, _digest(train, IDENTITY), _digest(test, IDENTITY)]
    return DatasetIndex(
        id=f"{name}-{_hash(identity)[:12]}",
        classes=classes,
        fingerprints={c.wnid: by_class[c.id] for c in classes if not c.removed},
        test_fingerprint=_hash([[c.wnid, tests[c.id]] for c in classes if not c.removed]),
        tables={"train": train, "test": test},
    )


def _ok_rows(table: pa.Table) -> np.ndarray:
    return np.flatnonzero(pc.equal(table["status"], "ok").to_numpy())


def _by_label(table: pa.Table, count: int) -> Iterator[pa.Table]:
    """Yield the readable images of each class, in the order of the index."""
    readable = table.take(pa.array(_ok_rows(table)))
    starts = np.searchsorted(readable["label"].to_numpy(), np.arange(count + 1))
    for first, last in pairwise(starts):
        yield readable.slice(first, last - first)


def _digest(table: pa.Table, columns: tuple[str, ...]) -> str:
    """Return a hash over some columns, row by row."""
    digest = hashlib.sha256()
    for batch in table.select(columns).to_batches(max_chunksize=4096):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _hash(parts: Any) -> str:
    return sha256(json.dumps(parts, separators=(",", ":")).encode())
