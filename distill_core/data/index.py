"""The index: what the input is. Built once; every later stage reads the index, not a folder.

``datasets/<id>/index/`` holds one row per image of each split, ``datasets/<id>/index.json``,
created last, the class list and the content fingerprints. Rows stand in the order of class, name
and hash, so that a class's images have the same order wherever and however they are stored. The id
is a hash of the rows and the classes, addresses relative to the dataset's folder included: moving
the folder changes nothing, and one id never means two layouts.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_core.config.data import DataConfig
from distill_core.data.contents import Contents
from distill_core.data.ingest import NOTHING, check_classes, check_split, read_split
from distill_core.data.numbering import number_classes
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Split
from distill_core.errors import DataError
from distill_core.progress import Progress, silent
from distill_core.sharding import ClassEntry, class_list_hash
from distill_core.storage.digest import sha256
from distill_core.storage.parquet import open_parquet
from distill_core.storage.store import Store

IDENTITY = ("label", "name", "uri", "offset", "size", "sha256", "status")  # reason is only words
CONTENT = ("name", "size", "sha256")


@dataclass(frozen=True)
class DatasetIndex:
    """What was ingested; tables have the columns of `survey.SCHEMA`."""

    id: str
    classes: tuple[ClassEntry, ...]  # by id, holes included
    fingerprints: Mapping[str, str]  # wnid -> hash over names, sizes, hashes of its train images
    test_fingerprint: str
    train: pa.Table
    test: pa.Table

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
        return self.train if split == "train" else self.test

    def rows_of(self, split: Split, label: int) -> np.ndarray:
        """Return the rows of a class's readable images in a split, (n,) int64."""
        rows = self._readable[split]
        first, last = np.searchsorted(self._labels[split][rows], [label, label + 1])
        return rows[first:last]

    def readable(self, split: Split) -> np.ndarray:
        """Return the rows of every readable image in a split, (n,) int64."""
        return self._readable[split]

    def contents(self) -> Contents:
        """Return the content of every readable image of both splits."""
        tables = ((self.train, self._readable["train"]), (self.test, self._readable["test"]))
        return Contents(
            digest for table, rows in tables for digest in table["sha256"].to_numpy()[rows]
        )

    def duplicates(self) -> dict[str, int]:
        """Return how many contents stand under several classes, and in both splits.

        They are kept; a large number says that a dataset was put together wrongly.
        """
        train, test = (t.filter(pc.field("status") == "ok") for t in (self.train, self.test))
        labels = train.group_by("sha256").aggregate([("label", "count_distinct")])
        several = pc.sum(pc.greater(labels["label_count_distinct"], 1)).as_py() or 0
        leaked = pc.sum(pc.is_in(pc.unique(test["sha256"]), train["sha256"])).as_py() or 0
        return {"classes": several, "splits": leaked}

    @cached_property
    def _readable(self) -> dict[Split, np.ndarray]:
        return {"train": _ok_rows(self.train), "test": _ok_rows(self.test)}

    @cached_property
    def _labels(self) -> dict[Split, np.ndarray]:
        return {"train": self.train["label"].to_numpy(), "test": self.test["label"].to_numpy()}


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
        previous: the version before, whose class ids go on, see `number_classes`; images that it
            has are hashed, but not decoded again.
        progress: told (images read, images in total).

    Raises:
        ConfigError: the dataset's address is wrong.
        DataError: a class without images, another class count, too many unreadable images.
    """
    reader = open_reader(config)
    names = reader.classes()
    classes = number_classes(names, () if previous is None else previous.classes)
    check_classes(config, names, classes)
    by_name = {entry.wnid: entry for entry in classes}
    there = [by_name[name] for name in names]
    decoded = NOTHING if previous is None else previous.contents()
    counts = {"train": reader.count("train"), "test": reader.count("test")}
    total = sum(counts.values())

    def split_table(split: Split, before: int) -> pa.Table:
        def moved(done: int, _: int) -> None:
            progress(before + done, total)

        table = read_split(reader, config, split, there, decoded=decoded, progress=moved)
        check_split(config, split, table, there)
        return table

    train, test = split_table("train", 0), split_table("test", counts["train"])
    index = _index(config.name, classes, train, test)
    _commit(store, index)
    return index


def load_index(store: Store, dataset: str) -> DatasetIndex:
    """Read a committed index.

    Raises:
        DataError: there is none under that id, or it is damaged.
    """
    path = _facts_path(dataset)
    try:
        facts = json.loads(store.read(path))
        classes = tuple(ClassEntry(**entry) for entry in facts["classes"])
        return DatasetIndex(
            id=dataset,
            classes=classes,
            fingerprints=facts["fingerprints"],
            test_fingerprint=facts["test_fingerprint"],
            train=_load_table(store, dataset, facts["files"]["train"]),
            test=_load_table(store, dataset, facts["files"]["test"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{store.uri(path)}: not the description of a dataset ({error!r}). "
            "Delete it and ingest again."
        ) from error


def _index(
    name: str, classes: tuple[ClassEntry, ...], train: pa.Table, test: pa.Table
) -> DatasetIndex:
    by_class = [_digest(part, CONTENT) for part in _by_label(train, len(classes))]
    tests = [_digest(part, CONTENT) for part in _by_label(test, len(classes))]
    entries = [list(asdict(entry).values()) for entry in classes]
    identity = [entries, _digest(train, IDENTITY), _digest(test, IDENTITY)]
    return DatasetIndex(
        id=f"{name}-{_hash(identity)[:12]}",
        classes=classes,
        fingerprints={c.wnid: by_class[c.id] for c in classes if not c.removed},
        test_fingerprint=_hash([[c.wnid, tests[c.id]] for c in classes if not c.removed]),
        train=train,
        test=test,
    )


def _commit(store: Store, index: DatasetIndex) -> None:
    """Write the tables under names of their content, then the facts, unless they are there."""
    if store.exists(_facts_path(index.id)):
        return
    files = {}
    for split, table in (("train", index.train), ("test", index.test)):
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
        digest = sha256(stream.getvalue())
        # Another version of Arrow writes other bytes for the same rows: both may then lie here.
        files[split] = {"file": f"{split}-{digest[:16]}.parquet", "sha256": digest}
        store.put(_table_path(index.id, files[split]["file"]), stream.getvalue())
    facts = {
        "classes": [asdict(entry) for entry in index.classes],
        "images": {"train": index.train.num_rows, "test": index.test.num_rows},
        "duplicates": index.duplicates(),
        "fingerprints": dict(index.fingerprints),
        "test_fingerprint": index.test_fingerprint,
        "files": files,
    }
    store.create(_facts_path(index.id), json.dumps(facts, indent=1).encode())


def _load_table(store: Store, dataset: str, file: Mapping[str, str]) -> pa.Table:
    path = _table_path(dataset, file["file"])
    data = store.read(path)
    if sha256(data) != file["sha256"]:
        raise DataError(
            f"{store.uri(path)}: {len(data)} bytes that index.json does not describe. "
            f"Delete the folder {store.uri(f'datasets/{dataset}')} and ingest again."
        )
    with open_parquet(data, where=store.uri(path), columns=IDENTITY) as opened:
        return opened.read()


def _facts_path(dataset: str) -> str:
    return f"datasets/{dataset}/index.json"


def _table_path(dataset: str, file: str) -> str:
    return f"datasets/{dataset}/index/{file}"


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
