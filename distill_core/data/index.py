"""The index: what the input is. Built once; every later stage reads the index, not a folder.

``datasets/<id>/index/{train,test}.parquet`` hold one row per image; ``index.json``, created last,
holds the class list and the content fingerprints. The id is a hash of the content, so the same
images give the same id wherever they lie.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.config.schema import DataConfig
from distill_core.data.decode import decode_image
from distill_core.data.readers import READERS, Record
from distill_core.errors import DataError
from distill_core.plan import ClassEntry, class_list_hash
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store

SCHEMA = pa.schema(
    [
        pa.field("label", pa.int32(), nullable=False),
        pa.field("wnid", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),  # row in a Parquet file, else 0
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok | bad
        pa.field("reason", pa.string(), nullable=False),
    ]
)
CHUNK = 512  # records decoded at a time
THREADS = 2  # Pillow lets go of the interpreter while it decodes


@dataclass(frozen=True)
class DatasetIndex:
    """What was ingested."""

    id: str
    classes: tuple[ClassEntry, ...]
    fingerprints: Mapping[str, str]  # wnid -> hash over names, sizes and hashes of its train images
    test_fingerprint: str
    train: pa.Table
    test: pa.Table

    @property
    def class_hash(self) -> str:
        """Return the identity of the label space."""
        return class_list_hash(self.classes)

    @cached_property
    def _ok(self) -> dict[str, np.ndarray]:
        return {
            s: np.array(getattr(self, s)["status"].to_pylist()) == "ok" for s in ("train", "test")
        }

    @cached_property
    def _labels(self) -> dict[str, np.ndarray]:
        return {s: getattr(self, s)["label"].to_numpy() for s in ("train", "test")}

    def rows_of(self, split: str, label: int) -> np.ndarray:
        """Return the rows of a class's readable images in a split."""
        return np.flatnonzero(self._ok[split] & (self._labels[split] == label))

    def readable(self, split: str) -> np.ndarray:
        """Return the rows of every readable image in a split."""
        return np.flatnonzero(self._ok[split])


def ingest(config: DataConfig, store: Store, *, progress: Progress = silent) -> DatasetIndex:
    """Read, hash and decode-check every image, then commit the index; idempotent.

    Raises:
        DataError: a class without images, another class count, too many unreadable images.
    """
    reader = READERS[config.format]
    classes = reader.classes(config)
    _check_classes(config, classes)
    tables, names = {}, {}
    for split, where in (("train", config.train), ("test", config.test)):
        records = reader.records(config, where, classes)
        tables[split], names[split] = _table(config, records, classes, progress)
        _check_split(config, split, tables[split], classes)
    index = _index(config, classes, tables, names)
    _commit(store, index)
    return index


def load_index(store: Store, dataset: str) -> DatasetIndex:
    """Read a committed index."""
    facts = json.loads(store.read(f"datasets/{dataset}/index.json"))
    splits = {}
    for split in ("train", "test"):
        data = store.read(f"datasets/{dataset}/index/{split}.parquet")
        if sha256(data) != facts["sha256"][split]:
            raise DataError(
                f"{store.uri(f'datasets/{dataset}/index/{split}.parquet')}: does not match "
                "index.json. Delete the folder and ingest again."
            )
        splits[split] = pq.read_table(io.BytesIO(data))
    return DatasetIndex(
        id=dataset,
        classes=tuple(ClassEntry(**entry) for entry in facts["classes"]),
        fingerprints=facts["fingerprints"],
        test_fingerprint=facts["test_fingerprint"],
        **splits,
    )


def _check_classes(config: DataConfig, classes: Sequence[str]) -> None:
    where = config.path or config.format
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise DataError(f"{where}: two classes are named {twice[0]!r}. Rename one.")
    if len(classes) != config.num_classes:
        raise DataError(
            f"{where}: {len(classes)} classes, data.num_classes says {config.num_classes}. "
            "Correct one of them."
        )


def _table(
    config: DataConfig, records: Iterator[Record], classes: Sequence[str], progress: Progress
) -> tuple[pa.Table, list[str]]:
    """Return the rows of one split, and the names of its images for the fingerprints."""
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(islice(records, CHUNK)):
            reasons = pool.map(lambda record: _reason(config, record, classes), chunk)
            rows += [_row(r, why, classes) for r, why in zip(chunk, reasons, strict=True)]
            names += [record.name for record in chunk]
            progress(len(rows), 0)
    return pa.Table.from_pylist(rows, schema=SCHEMA), names


def _reason(config: DataConfig, record: Record, classes: Sequence[str]) -> str:
    """Return why an image cannot be used; empty when it can."""
    if not 0 <= record.label < len(classes):
        return f"label {record.label} is not one of {len(classes)} classes"
    try:
        decode_image(record.data, config)
    except DataError as error:
        return str(error).removeprefix("image: ")
    return ""


def _row(record: Record, reason: str, classes: Sequence[str]) -> dict[str, Any]:
    known = 0 <= record.label < len(classes)
    return {
        "label": record.label,
        "wnid": classes[record.label] if known else "",
        "uri": record.uri,
        "offset": record.offset,
        "size": len(record.data),
        "sha256": sha256(record.data),
        "status": "bad" if reason else "ok",
        "reason": reason,
    }


def _check_split(config: DataConfig, split: str, table: pa.Table, classes: Sequence[str]) -> None:
    where = f"{config.path or config.format}: {split} split"
    bad = [
        row
        for row in table.select(["uri", "offset", "status", "reason"]).to_pylist()
        if row["status"] == "bad"
    ]
    if len(bad) > config.max_bad_fraction * table.num_rows:
        first = bad[0]
        row = f" row {first['offset']}" if config.format == "parquet" else ""
        raise DataError(
            f"{where}: {len(bad)} of {table.num_rows} images cannot be used, the first is "
            f"{first['uri']}{row}: {first['reason']} Mend them, or raise data.max_bad_fraction."
        )
    found = {
        row["label"]
        for row in table.select(["label", "status"]).to_pylist()
        if row["status"] == "ok"
    }
    missing = [name for label, name in enumerate(classes) if label not in found]
    if (missing and split == "train") or not found:
        raise DataError(
            f"{where}: no readable image of class {missing[0]!r} ({len(missing)} such classes). "
            "Add images, or leave the class out and lower data.num_classes."
        )


def _index(
    config: DataConfig,
    classes: Sequence[str],
    tables: Mapping[str, pa.Table],
    names: Mapping[str, Sequence[str]],
) -> DatasetIndex:
    by_class = _fingerprints(tables["train"], names["train"])
    fingerprints = {name: by_class[name] for name in classes}
    test = _hash(sorted(_fingerprints(tables["test"], names["test"]).items()))
    entries = tuple(ClassEntry(label, name) for label, name in enumerate(classes))
    content = _hash([class_list_hash(entries), sorted(fingerprints.items()), test])
    return DatasetIndex(
        id=f"{config.name}-{content[:12]}",
        classes=entries,
        fingerprints=fingerprints,
        test_fingerprint=test,
        train=tables["train"],
        test=tables["test"],
    )


def _fingerprints(table: pa.Table, names: Sequence[str]) -> dict[str, str]:
    """Return each class's hash over the names, sizes and hashes of its readable images."""
    images: dict[str, list[list[Any]]] = defaultdict(list)
    for row, name in zip(table.to_pylist(), names, strict=True):
        if row["status"] == "ok":
            images[row["wnid"]].append([name, row["size"], row["sha256"]])
    return {wnid: _hash(sorted(of_class)) for wnid, of_class in images.items()}


def _commit(store: Store, index: DatasetIndex) -> None:
    hashes = {}
    for split in ("train", "test"):
        stream = io.BytesIO()
        pq.write_table(getattr(index, split), stream, compression="zstd", write_page_checksum=True)
        hashes[split] = sha256(stream.getvalue())
        store.put(f"datasets/{index.id}/index/{split}.parquet", stream.getvalue())
    facts = {
        "classes": [asdict(entry) for entry in index.classes],
        "fingerprints": dict(index.fingerprints),
        "test_fingerprint": index.test_fingerprint,
        "sha256": hashes,
    }
    store.create(f"datasets/{index.id}/index.json", json.dumps(facts, indent=1).encode())


def _hash(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()
