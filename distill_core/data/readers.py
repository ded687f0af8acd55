"""Reading what users have: folders of images, Hugging Face style Parquet, the digits.

A reader names classes and images; it decodes nothing. Addresses are relative to the dataset's
folder, so an index does not change when the folder moves.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.config.schema import DataConfig
from distill_core.data.digits import DIGITS_CLASSES, digits_split
from distill_core.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Record:
    """One image as it is stored."""

    label: int
    uri: str  # relative to the dataset's folder
    offset: int  # row in a Parquet file, else 0
    name: str  # what the content fingerprint calls it: stable when files are rewritten
    data: bytes


@dataclass(frozen=True, slots=True)
class Reader:
    """How one format is read."""

    classes: Callable[[DataConfig], tuple[str, ...]]
    records: Callable[[DataConfig, str, Sequence[str]], Iterator[Record]]
    # several records of one file at once: (config, uri, offsets) -> their bytes
    fetch: Callable[[DataConfig, str, Sequence[int]], list[bytes]]


def locate(config: DataConfig) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem and the folder of a dataset.

    Raises:
        DataError: there is no such folder.
    """
    if config.path is None:
        raise DataError(f"data.path: {config.format} needs one. Say data.path=FOLDER.")
    fs, root = fsspec.core.url_to_fs(config.path)
    if not fs.exists(root):
        raise DataError(f"data.path: {config.path}: no such folder. Check the path.")
    return fs, str(root).rstrip("/")


# --- image folders: <path>/<split>/<class>/<image> ---


def _folder_classes(config: DataConfig) -> tuple[str, ...]:
    fs, root = locate(config)
    folder = f"{root}/{config.train}"
    if not fs.isdir(folder):
        raise DataError(f"{config.path}/{config.train}: no such folder of classes. Say data.train.")
    names = (
        posixpath.basename(e["name"].rstrip("/"))
        for e in fs.ls(folder, detail=True)
        if e["type"] == "directory"
    )
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _folder_records(config: DataConfig, split: str, classes: Sequence[str]) -> Iterator[Record]:
    fs, root = locate(config)
    for label, wnid in enumerate(classes):
        folder = f"{root}/{split}/{wnid}"
        paths = sorted(fs.find(folder)) if fs.isdir(folder) else []
        for path in paths:
            name = posixpath.basename(path)
            if name.startswith("."):
                continue
            uri = path.removeprefix(f"{root}/")
            yield Record(label, uri, 0, uri.removeprefix(f"{split}/"), fs.cat_file(path))


def _folder_fetch(config: DataConfig, uri: str, offsets: Sequence[int]) -> list[bytes]:
    fs, root = locate(config)
    return [bytes(fs.cat_file(f"{root}/{uri}"))]


# --- Parquet: image struct<bytes, path>, label ---


def _parquet_files(config: DataConfig, split: str) -> list[str]:
    """Return the files of a split: a folder, a file with or without its ending, or a glob."""
    fs, root = locate(config)
    for pattern in (split, f"{split}.parquet", f"{split}/*.parquet", f"{split}-*.parquet"):
        found = sorted(p for p in fs.glob(f"{root}/{pattern}") if str(p).endswith(".parquet"))
        if found:
            return [str(path) for path in found]
    raise DataError(
        f"{config.path}: no Parquet file for the split {split!r}; expected {split}.parquet, "
        f"{split}-*.parquet or a folder. Say data.train and data.test."
    )


def _open(config: DataConfig, path: str) -> pq.ParquetFile:
    fs, _ = locate(config)
    try:
        file = pq.ParquetFile(fs.open(path, "rb"))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error}).") from None
    names = set(file.schema_arrow.names)
    if not {"image", "label"} <= names:
        raise DataError(
            f"{path}: columns {', '.join(sorted(names))}; expected image (struct<bytes, path>) "
            "and label."
        )
    return file


def _parquet_classes(config: DataConfig) -> tuple[str, ...]:
    path = _parquet_files(config, config.train)[0]
    metadata = _open(config, path).schema_arrow.metadata or {}
    info = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {})
    names = info.get("features", {}).get("label", {}).get("names")
    if names:
        return tuple(map(str, names))
    return tuple(f"class_{label:05d}" for label in range(config.num_classes))


def _parquet_records(config: DataConfig, split: str, classes: Sequence[str]) -> Iterator[Record]:
    _, root = locate(config)
    for path in _parquet_files(config, split):
        uri, row = path.removeprefix(f"{root}/"), 0
        for batch in _open(config, path).iter_batches(BATCH_ROWS, columns=["image", "label"]):
            files = batch.column("image").field("bytes").to_pylist()
            for label, data in zip(batch.column("label").to_pylist(), files, strict=True):
                yield Record(int(label), uri, row, f"{uri}#{row}", data or b"")
                row += 1


def _parquet_fetch(config: DataConfig, uri: str, offsets: Sequence[int]) -> list[bytes]:
    column = _parquet_column(config, uri)
    files: list[bytes] = column.take(pa.array(offsets)).to_pylist()
    return files


@lru_cache(maxsize=4)
def _parquet_column(config: DataConfig, uri: str) -> pa.Array:
    """Return the encoded images of a file; small datasets are read once per process."""
    _, root = locate(config)
    table = _open(config, f"{root}/{uri}").read(columns=["image"])
    return table["image"].combine_chunks().field("bytes")


# --- the digits inside scikit-learn ---


def _digits_records(config: DataConfig, split: str, classes: Sequence[str]) -> Iterator[Record]:
    files, labels = digits_split("train" if split == config.train else "test")
    for row, (data, label) in enumerate(zip(files, labels, strict=True)):
        yield Record(label, f"digits/{split}", row, f"{split}#{row}", data)


def _digits_fetch(config: DataConfig, uri: str, offsets: Sequence[int]) -> list[bytes]:
    files, _ = digits_split("train" if uri.endswith(f"/{config.train}") else "test")
    return [files[offset] for offset in offsets]


READERS: Mapping[str, Reader] = {
    "imagefolder": Reader(_folder_classes, _folder_records, _folder_fetch),
    "parquet": Reader(_parquet_classes, _parquet_records, _parquet_fetch),
    "digits": Reader(lambda config: DIGITS_CLASSES, _digits_records, _digits_fetch),
}
