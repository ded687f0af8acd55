"""The columns of a Parquet file that hold images and labels, chosen or guessed, and their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.errors import DataError, one_line

EXPECTED = "image (struct<bytes: binary, path: string>) and label (an integer)"
IMAGES = ("image", "img")  # names that are guessed
LABELS = ("label", "fine_label", "class_id")


@dataclass(frozen=True)
class Columns:
    """The names of the columns."""

    image: str
    label: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the columns to read, those of the image by their parts."""
        return (f"{self.image}.bytes", f"{self.image}.path", self.label)


def choose_columns(schema: pa.Schema, image: str | None, label: str | None, where: str) -> Columns:
    """Return the columns of a file, which hold images and numbers in any of their encodings.

    Args:
        schema: of the file.
        image: name of the image column; None: guessed.
        label: name of the label column; None: guessed.
        where: names the file in errors.

    Raises:
        DataError: a column is missing or of another type, or several can be meant.
    """
    chosen = Columns(
        _choose(schema, image, IMAGES, "data.image_column", where),
        _choose(schema, label, LABELS, "data.label_column", where),
    )
    kinds = [schema.field(name).type for name in (chosen.image, chosen.label)]
    if not _holds_bytes(kinds[0]) or not pa.types.is_integer(_decoded(kinds[1])):
        raise DataError(
            f"{where}: columns {chosen.image} ({kinds[0]}) and {chosen.label} ({kinds[1]}); "
            f"expected {EXPECTED}. Embed the image files and number the classes."
        )
    return chosen


def _choose(
    schema: pa.Schema, name: str | None, guesses: Sequence[str], key: str, where: str
) -> str:
    names = one_line(", ".join(sorted(schema.names)))[:200]
    if name is not None:
        if name in schema.names:
            return name
        raise DataError(f"{where}: columns {names}; no column {name}. Correct {key}.")
    found = [guess for guess in guesses if guess in schema.names]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{where}: columns {', '.join(found)} can be meant. Set {key} to one of them."
        )
    raise DataError(
        f"{where}: columns {names}; expected {EXPECTED}. Set {key} to the name of the column."
    )


def _holds_bytes(image: pa.DataType) -> bool:
    if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        return False
    kind = _decoded(image.field("bytes").type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _decoded(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a column that may be dictionary-encoded."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def label_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    """Return the label names in Hugging Face's feature metadata, if there are any.

    Args:
        metadata: of the schema of a file.
        column: name of the label column.
    """
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def has_labels(file: pq.ParquetFile, column: str) -> bool:
    """Return whether a row of a file can have a label that is not negative, such as -1.

    Where the file has no statistics, the labels of its first row group decide.
    """
    for group in range(file.num_row_groups):
        maximum = _maximum(file.metadata.row_group(group), column)
        if maximum is None:
            labels = file.read_row_group(group, columns=[column]).column(column).to_pylist()
            maximum = max((label for label in labels if label is not None), default=0)
        if maximum >= 0:
            return True
    return bool(file.metadata.num_rows == 0)


def _maximum(group: Any, column: str) -> int | None:
    """Return the largest label of a row group by its statistics."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema == column:
            statistics = chunk.statistics
            known = statistics is not None and statistics.has_min_max
            return int(statistics.max) if known else None
    return None
