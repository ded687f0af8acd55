"""Reader of CIFAR-10 and CIFAR-100 as their authors publish them: pickled batches of pixels.

``cifar-10-batches-py/data_batch_1`` to ``_5`` and ``test_batch``, or ``cifar-100-python/train`` and
``test``. No code of a file is run. An image is given as a PPM file, which has no choices: the same
pixels are always the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from distill_core.config.data import DataConfig
from distill_core.data.files.local import ListedFile
from distill_core.data.folders import locate
from distill_core.data.readers.inert_pickle import load
from distill_core.data.readers.labels import stray_label
from distill_core.data.readers.parts import is_current, stamp_of
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.errors import DataError

SIDE = 32
VALUES = 3 * SIDE * SIDE
HEADER = f"P6 {SIDE} {SIDE} 255\n".encode()
MAX_BYTES = 2**30  # of a file; the largest one has 155 MB
HELD = 6  # batches in memory: those of CIFAR-10


@dataclass(frozen=True)
class Kind:
    """The files of one of the two datasets."""

    folder: str
    files: Mapping[Split, tuple[str, ...]]
    names: str  # file of the class names
    names_key: bytes
    label_key: bytes


KINDS = (
    Kind(
        "cifar-10-batches-py",
        MappingProxyType(
            {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
        ),
        "batches.meta",
        b"label_names",
        b"labels",
    ),
    Kind(
        "cifar-100-python",
        MappingProxyType({"train": ("train",), "test": ("test",)}),
        "meta",
        b"fine_label_names",
        b"fine_labels",
    ),
)


class CifarReader:
    """Reads the batches; address (file, row in it). `data.train` and `data.test` are not used."""

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._load = lru_cache(HELD)(self._read)
        self._kind, self._folder = self._find()

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the names in the order of the dataset's own numbers.

        Raises:
            DataError: a file is missing or is not read.
        """
        uri = f"{self._folder}{self._kind.names}"
        names = self._field(uri, self._kind.names_key)
        if not isinstance(names, list) or not all(isinstance(n, bytes | str) for n in names):
            raise DataError(f"{self._root.url}/{uri}: no list of class names. Copy it again.")
        return tuple(n.decode(errors="replace") if isinstance(n, bytes) else n for n in names)

    def parts(self, split: Split) -> Sequence[Part]:
        """Return one part for each batch.

        Raises:
            DataError: a batch is missing.
        """
        listed = self._listed()
        return [
            Part(
                split,
                f"{split}-{number:05d}",
                files=(uri,),
                bytes=listed[uri].size,
                stamp=stamp_of([listed[uri]]),
            )
            for number, uri in enumerate(self._uris(split, listed))
        ]

    def notices(self, split: Split) -> list[str]:
        """Return nothing: every record counts."""
        return []

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every row of a batch, named as in its list of file names.

        Raises:
            DataError: the batch is not read, or a label is of no class.
        """
        (uri,) = part.files
        pixels, labels = self._pixels(uri), self._field(uri, self._kind.label_key)
        names = self._load(uri).get(b"filenames") or [b""] * len(pixels)
        for row, (label, name) in enumerate(zip(labels, names, strict=True)):
            if not isinstance(label, int) or not 0 <= label < len(classes):
                raise stray_label(f"{self._root.url}/{uri} row {row}", label, len(classes))
            text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
            yield Record(label, uri, row, text, _ppm(pixels[row]))

    def sample_labels(self, split: Split) -> list[int | None]:
        """Return the labels of the first batch of a split.

        Raises:
            DataError: a batch is missing or is not read, or a label is no number.
        """
        uri = self._uris(split, self._listed())[0]
        self._pixels(uri)  # which checks that there is a label for each of them
        labels: list[int | None] = []
        for row, label in enumerate(self._field(uri, self._kind.label_key)):
            if not isinstance(label, int):
                raise stray_label(f"{self._root.url}/{uri} row {row}", label, len(self.classes()))
            labels.append(label)
        return labels

    def is_current(self, part: Part) -> bool:
        """Return whether the batch is the one that was planned."""
        return is_current(part, self._root)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by file and row."""
        images = []
        for uri, row, _ in addresses:
            pixels = self._pixels(uri)
            if row >= len(pixels):
                raise DataError(
                    f"{self._root.url}/{uri}: has fewer rows than when ingested. Restore the file."
                )
            images.append(_ppm(pixels[row]))
        return images

    def _find(self) -> tuple[Kind, str]:
        """Return the dataset at the path and its folder; the path may be that folder."""
        files = {file.path for file in self._root.files_in("").files}
        for kind in KINDS:
            if kind.names in files:
                return kind, ""
            if self._root.is_folder(kind.folder):
                return kind, f"{kind.folder}/"
        expected = " or ".join(kind.folder for kind in KINDS)
        raise DataError(
            f"{self._root.url}: no {expected}. Unpack the archive of the Python version there."
        )

    def _listed(self) -> dict[str, ListedFile]:
        """Return the files beside the batches, by their paths."""
        return {file.path: file for file in self._root.files_in(self._folder.rstrip("/")).files}

    def _uris(self, split: Split, listed: Mapping[str, ListedFile]) -> list[str]:
        uris = [f"{self._folder}{name}" for name in self._kind.files[split]]
        if missing := [uri for uri in uris if uri not in listed]:
            raise DataError(f"{self._root.url}/{missing[0]}: no such file. Copy it again.")
        return uris

    def _pixels(self, uri: str) -> np.ndarray:
        """Return the images of a batch, (n, 3072) uint8, channel by channel."""
        pixels = self._field(uri, b"data")
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != VALUES:
            raise DataError(
                f"{self._root.url}/{uri}: no array of {VALUES} bytes per image. Copy it again."
            )
        labels = self._field(uri, self._kind.label_key)
        if not isinstance(labels, list) or len(labels) != len(pixels):
            raise DataError(f"{self._root.url}/{uri}: not a label per image. Copy it again.")
        return pixels

    def _field(self, uri: str, key: bytes) -> Any:
        batch = self._load(uri)
        if key not in batch:
            raise DataError(f"{self._root.url}/{uri}: has no {key.decode()}. Copy it again.")
        return batch[key]

    def _read(self, uri: str) -> dict[Any, Any]:
        """Return a file with keys as bytes, as Python 2 wrote them."""
        where = f"{self._root.url}/{uri}"
        (data,) = self._root.read([uri])
        if len(data) > MAX_BYTES:
            raise DataError(f"{where}: {len(data):,} bytes, expected a batch. Check the path.")
        batch = load(data, where)
        if not isinstance(batch, dict):
            raise DataError(f"{where}: holds no dictionary. Copy it again.")
        return {k.encode() if isinstance(k, str) else k: value for k, value in batch.items()}


def _ppm(row: np.ndarray) -> bytes:
    """Return an image, (3072,) uint8 channel by channel, as a PPM file."""
    return HEADER + row.reshape(3, SIDE, SIDE).transpose(1, 2, 0).tobytes()
