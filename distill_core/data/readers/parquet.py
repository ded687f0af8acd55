"""Reader of Hugging Face Parquet: ``image: struct<bytes, path>`` and an integer ``label``.

Row groups are decoded one after the other and in parts: Arrow returns no struct column in several
chunks, and one chunk of plain binary holds at most 2 GiB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_core.config.data import DataConfig
from distill_core.data.files.errors import reading
from distill_core.data.files.local import ListedFile
from distill_core.data.folders import locate
from distill_core.data.readers.labels import numbered_classes, stray_label
from distill_core.data.readers.parquet_columns import (
    Columns,
    choose_columns,
    has_labels,
    label_names,
)
from distill_core.data.readers.parquet_files import find_files, label_map
from distill_core.data.readers.parquet_rows import batches_of, rows_of
from distill_core.data.readers.parts import Piece, assemble, is_current, stamp_of, stamp_of_pieces
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.data.readers.row_groups import HeldGroups
from distill_core.errors import DataError
from distill_core.storage.row_groups import PARQUET_ERRORS

LARGE_GROUP = 2**29  # bytes of a row group that is worth a notice
SAMPLED_FILES = 4  # whose labels are looked at before a run starts


@dataclass(frozen=True)
class Layout:
    """The metadata of one file."""

    starts: np.ndarray  # (row groups + 1,) first row of every row group, and the number of rows
    sizes: tuple[int, ...]  # bytes of each row group in memory
    names: tuple[str, ...]  # of the labels; empty if the file has none
    columns: Columns
    has_labels: bool  # False: all are negative


class ParquetReader:
    """Reads one or several files per split; class names come from the metadata, if it has any.

    Random access reads whole row groups, so a large dataset should be read in the order of its
    files.
    """

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._pattern = {"train": config.train, "test": config.test}
        self._config = config
        self._listed = cache(self._list)
        self._layout = cache(self._read_layout)
        self._groups = HeldGroups(self._read_group)

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the ClassLabel names of a split, else `class_00000` and so on.

        Raises:
            DataError: a file names a class that the first one does not have.
        """
        files = self._files(split)
        names = self._layout(files[0]).names
        for uri in files if names else ():
            label_map(self._layout(uri).names, names, self._where(uri))
        return names or self._numbered()

    def parts(self, split: Split) -> Sequence[Part]:
        """Return ranges of row groups; every part lies in one file.

        Raises:
            DataError: no image has a label.
        """
        if not any(self._layout(uri).has_labels for uri in self._files(split)):
            raise DataError(
                f"{self._where(self._files(split)[0])}: all labels of the {split} split are -1, as "
                "in the hub's unlabelled test splits. Use the validation split: set "
                f"data.{split} to its name."
            )
        return assemble(split, self._pieces(split))

    def notices(self, split: Split) -> list[str]:
        """Return a sentence about the largest row group, if it needs much memory."""
        sizes = [(max(self._layout(uri).sizes, default=0), uri) for uri in self._files(split)]
        size, uri = max(sizes)
        if size <= LARGE_GROUP:
            return []
        return [
            f"{uri} has a row group of {size / 1e9:.1f} GB, which every decoding process holds in "
            "memory as a whole. Smaller row groups, of about 100 MB, need less."
        ]

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every row of a part, named by its `path`; labels are compared by name.

        Raises:
            DataError: a file names a class that the training split does not have, or a row has
                a label of no class.
        """
        (uri,) = part.files
        is_named = bool(self._layout(self._files("train")[0]).names)
        names = self._layout(uri).names if is_named else ()
        places = label_map(names, classes, self._where(uri))
        groups, row = self._groups_of(part), part.first
        columns = self._layout(uri).columns
        with self._open(uri) as file:
            for label, image, name in rows_of(file, groups, columns):
                if label is not None and not 0 <= label < len(places):
                    unnamed = 0 <= label < len(classes)
                    raise stray_label(
                        f"{self._where(uri)} row {row}", label, len(classes), unnamed=unnamed
                    )
                place = -1 if label is None else places[label]
                problem = "the row has no label." if label is None else ""
                if not image and not problem:
                    problem = "the row holds no image."
                yield Record(place, uri, row, name or "", image or b"", problem)
                row += 1

    def is_current(self, part: Part) -> bool:
        """Return whether the file of a part is the one that was planned."""
        return is_current(part, self._root, lambda stamp: stamp_of_pieces([stamp]))

    def sample_labels(self, split: Split) -> list[int | None]:
        """Return the labels of the first row group of some files, evenly spaced."""
        files, labels = self._files(split), list[int | None]()
        for uri in files[:: -(-len(files) // SAMPLED_FILES)]:
            with self._open(uri) as file:
                if file.num_row_groups:
                    label = self._layout(uri).columns.label
                    labels += file.read_row_group(0, columns=[label])[label].to_pylist()
        return labels

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return images by file and row."""
        requests: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for place, (uri, row, _) in enumerate(addresses):
            starts = self._layout(uri).starts
            group = int(np.searchsorted(starts, row, side="right")) - 1
            requests[uri, group].append((place, row - int(starts[group])))
        images = [b""] * len(addresses)
        for (uri, group), rows in requests.items():
            held = self._groups.get(uri, group)
            for place, row in rows:
                if row >= len(held):
                    raise DataError(
                        f"{self._where(uri)}: has fewer rows than when ingested. Restore the file."
                    )
                images[place] = held[row].as_py() or b""
        return images

    def _pieces(self, split: Split) -> Iterator[Piece]:
        """Yield every row group of a split, and a file without rows as a piece of its own."""
        for file in self._listed(split):
            layout, stamp = self._layout(file.path), stamp_of([file])
            rows = list(pairwise(layout.starts.tolist())) or [(0, 0)]
            for (first, last), size in zip(rows, layout.sizes or (0,), strict=True):
                yield Piece(file.path, last - first, size, stamp, first, last)

    def _groups_of(self, part: Part) -> list[int]:
        """Return the row groups of a part."""
        starts = self._layout(part.files[0]).starts
        return [n for n, first in enumerate(starts[:-1]) if part.first <= first < part.last]

    def _files(self, split: Split) -> list[str]:
        return [file.path for file in self._listed(split)]

    def _list(self, split: Split) -> list[ListedFile]:
        return find_files(self._root, self._pattern[split], split)

    def _read_layout(self, uri: str) -> Layout:
        with self._open(uri) as file:
            groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
            columns = self._columns(file, uri)
            return Layout(
                starts=np.cumsum([0, *(group.num_rows for group in groups)]),
                sizes=tuple(int(group.total_byte_size) for group in groups),
                names=label_names(file.schema_arrow.metadata, columns.label),
                columns=columns,
                has_labels=has_labels(file, columns.label),
            )

    def _read_group(self, uri: str, group: int) -> pa.ChunkedArray:
        with self._open(uri) as file:
            if group >= file.num_row_groups:
                raise DataError(
                    f"{self._where(uri)}: has fewer rows than when ingested. Restore the file."
                )
            image = self._columns(file, uri).image
            parts = [
                pc.struct_field(part.column(image), "bytes")
                for part in batches_of(file, group, [f"{image}.bytes"])
            ]
            kind = file.schema_arrow.field(image).type.field("bytes").type
        return pa.chunked_array(parts, type=kind)

    @contextmanager
    def _open(self, uri: str) -> Iterator[pq.ParquetFile]:
        """Open a file and check its columns; Arrow's errors become a `DataError`."""
        where = self._where(uri)
        with reading(where), self._root.open(uri) as stream:
            try:
                with pq.ParquetFile(stream, page_checksum_verification=True) as file:
                    self._columns(file, uri)
                    yield file
            except PARQUET_ERRORS as error:
                # Arrow's own errors carry no errno; those of the file system do.
                if getattr(error, "errno", None) is not None:
                    raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                problem = f"not a complete Parquet file ({reason}). Copy it again."
                if isinstance(error, pa.ArrowNotImplementedError):
                    problem = f"an encoding that cannot be read ({reason}). Write it in another."
                raise DataError(f"{where}: {problem}") from error

    def _columns(self, file: pq.ParquetFile, uri: str) -> Columns:
        image, label = self._config.image_column, self._config.label_column
        return choose_columns(file.schema_arrow, image, label, self._where(uri))

    def _numbered(self) -> tuple[str, ...]:
        """Return class names for labels without names: as many as configured, else as found."""
        count = self._config.num_classes
        for uri in () if count else self._files("train"):
            with self._open(uri) as file:
                label = self._layout(uri).columns.label
                labels = pc.max(file.read(columns=[label]).column(label)).as_py()
            count = max(count, 1 + (-1 if labels is None else int(labels)))
        return numbered_classes(count, self._root.url)

    def _where(self, uri: str) -> str:
        return f"{self._root.url}/{uri}"
