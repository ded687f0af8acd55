"""Reader of Hugging Face Parquet: ``image: struct<bytes, path>`` and an integer ``label``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.config.data import DataConfig
from distill_core.data.folders import locate, reading
from distill_core.data.readers.record import Address, Record, Split
from distill_core.errors import DataError

BATCH_ROWS = 512
GROUPS_HELD = 16  # row groups kept in memory, so that a shuffled small dataset is read once
EXPECTED = "image (struct<bytes: binary, path: string>) and label (an integer)"


class ParquetReader:
    """Reads one or several files per split; class names come from the metadata, if it has any.

    Random access reads whole row groups, so a large dataset should be read in the order of its
    files.
    """

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._pattern = {"train": config.train, "test": config.test}
        self._num_classes = config.num_classes
        self._files = cache(self._list)
        self._starts = cache(self._read_starts)
        self._group = lru_cache(GROUPS_HELD)(self._read_group)

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the ClassLabel names of a split, else `class_00000` and so on."""
        with self._open(self._files(split)[0]) as file:
            names = _label_names(file.schema_arrow.metadata or {})
        return names or tuple(f"class_{label:05d}" for label in range(self._num_classes))

    def count(self, split: Split) -> int:
        """Return how many rows a split has."""
        return sum(int(self._starts(uri)[-1]) for uri in self._files(split))

    def notices(self, split: Split) -> list[str]:
        """Return nothing: every record counts."""
        return []

    def records(self, split: Split, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every row of a split, named by its `path`."""
        for uri in self._files(split):
            row = 0
            with self._open(uri) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=["image", "label"]):
                    for label, image in zip(*_columns(batch), strict=True):
                        yield _record(uri, row, label, image or {})
                        row += 1

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by file and row."""
        requests: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for place, (uri, row) in enumerate(addresses):
            group = int(np.searchsorted(self._starts(uri), row, side="right")) - 1
            requests[uri, group].append((place, row - int(self._starts(uri)[group])))
        images = [b""] * len(addresses)
        for (uri, group), rows in requests.items():
            column = self._group(uri, group)
            for place, row in rows:
                if row >= len(column):
                    raise DataError(
                        f"{self._where(uri)}: has fewer rows than when ingested. Restore the file."
                    )
                images[place] = column[row].as_py() or b""
        return images

    def _list(self, split: Split) -> list[str]:
        """Return the files of a split: one named with or without its ending, a glob, a folder."""
        name = self._pattern[split].strip("/")
        fixed = name.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0]
        candidates = [p for p in self._root.files(fixed).paths if p.endswith(".parquet")]
        for pattern in (name, f"{name}.parquet", f"{name}-*.parquet", f"{name}/*.parquet"):
            if files := [path for path in candidates if _matches(path, pattern)]:
                return files
        raise DataError(
            f"{self._root.url}: no Parquet file for the split {name!r}; expected {name}.parquet, "
            f"{name}-*.parquet or a folder {name}. Set data.{split} to its name."
        )

    def _read_starts(self, uri: str) -> np.ndarray:
        """Return the first row of every row group, and the number of rows."""
        with self._open(uri) as file:
            groups = range(file.num_row_groups)
            return np.cumsum([0, *(file.metadata.row_group(n).num_rows for n in groups)])

    def _read_group(self, uri: str, group: int) -> pa.ChunkedArray:
        with self._open(uri) as file:
            if group >= file.num_row_groups:
                raise DataError(
                    f"{self._where(uri)}: has fewer rows than when ingested. Restore the file."
                )
            image = file.read_row_group(group, columns=["image"])["image"]
        return pa.chunked_array([c.field("bytes") for c in image.chunks], type=pa.binary())

    @contextmanager
    def _open(self, uri: str) -> Iterator[pq.ParquetFile]:
        """Open a file and check its columns; Arrow's errors become a `DataError`."""
        where = self._where(uri)
        with reading(where), self._root.open(uri) as stream:
            try:
                with pq.ParquetFile(stream, page_checksum_verification=True) as file:
                    _check_schema(file.schema_arrow, where)
                    yield file
            except (pa.ArrowException, OSError) as error:
                # Arrow's own errors carry no errno; those of the file system do.
                if getattr(error, "errno", None) is not None:
                    raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise DataError(
                    f"{where}: not a complete Parquet file ({reason}). Copy it again."
                ) from error

    def _where(self, uri: str) -> str:
        return f"{self._root.url}/{uri}"


def _check_schema(schema: pa.Schema, where: str) -> None:
    names = ", ".join(sorted(schema.names))[:200]
    if not {"image", "label"} <= set(schema.names):
        raise DataError(f"{where}: columns {names}; expected {EXPECTED}. Rename them.")
    image, label = (schema.field(name).type for name in ("image", "label"))
    embedded = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not embedded or not pa.types.is_integer(label):
        raise DataError(
            f"{where}: columns image ({image}) and label ({label}); expected {EXPECTED}. "
            "Embed the image files and number the classes."
        )


def _columns(batch: pa.RecordBatch) -> tuple[list[int | None], list[dict[str, object] | None]]:
    return batch.column("label").to_pylist(), batch.column("image").to_pylist()


def _record(uri: str, row: int, label: int | None, image: dict[str, object]) -> Record:
    data, name = image.get("bytes"), image.get("path")
    problem = "" if data else "the row holds no image."
    if label is None:
        label, problem = -1, "the row has no label."
    label = label if -1 <= label < 2**31 else -1
    data = data if isinstance(data, bytes) else b""
    return Record(label, uri, row, name if isinstance(name, str) else "", data, problem)


def _label_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    """Return the label names in Hugging Face's feature metadata, if there are any."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        names = features["label"]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _matches(path: str, pattern: str) -> bool:
    """Return whether a path matches a glob, folder by folder: `*` stops at a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
