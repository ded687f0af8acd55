"""Deterministic writing and verified reading of Parquet in memory.

Files contain no time and no host name, so the same rows give the same bytes. Page checksums are
written and verified, so a flipped bit is an error and never a wrong number.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.row_groups import PARQUET_ERRORS, RowGroupFile

METADATA_KEY = b"distill"  # our own facts, as JSON, in the schema metadata


def write_row_groups(schema: pa.Schema, tables: Iterable[pa.Table], **options: Any) -> bytes:
    """Return a Parquet file in which every table is one row group.

    Args:
        schema: of every table, with the file's metadata.
        tables: at least one row each.
        options: compression and encodings, as pyarrow names them.
    """
    # Built in memory, because a writer closed by an exception leaves a short but readable file.
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, schema, write_page_checksum=True, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    return stream.getvalue()


@contextmanager
def open_parquet(
    data: bytes | RowGroupFile, *, where: str, columns: Sequence[str]
) -> Iterator[pq.ParquetFile]:
    """Open a file whose pages are verified as they are read.

    Args:
        data: the whole file, or an open one in a store.
        where: names the file in errors.
        columns: required columns.

    Raises:
        DataError: it is damaged, not a Parquet file, or lacks one of `columns`.
    """
    in_memory = isinstance(data, bytes)
    source = pa.BufferReader(data) if in_memory else pa.PythonFile(data, mode="r")
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            need_columns(file, columns, where=where)
            yield file
    except PARQUET_ERRORS as error:
        raise DataError(
            f"{where}: {len(data)} bytes are not a complete Parquet file ({_first_line(error)}). "
            f"Copy it again, or recreate it."
        ) from error


def need_columns(file: pq.ParquetFile, columns: Sequence[str], *, where: str) -> None:
    """Check that a file has some columns.

    Raises:
        DataError: one of `columns` is missing.
    """
    if missing := sorted(set(columns) - set(file.schema_arrow.names)):
        raise DataError(
            f"{where}: no column {missing[0]!r}; it has "
            f"{', '.join(file.schema_arrow.names) or 'none'}. Use a file of the expected kind."
        )


def fixed_lists(values: np.ndarray) -> pa.FixedSizeListArray:
    """Wrap (N, K) as N lists of K values each, without copying where `values` is contiguous."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=list_type(flat.type, values.shape[1]))


def byte_rows(values: np.ndarray) -> pa.FixedSizeBinaryArray:
    """Wrap (N, K) uint8 as N values of K bytes, which Parquet stores without a level per byte."""
    whole = np.ascontiguousarray(values)
    kind = pa.binary(whole.shape[1])
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(whole), [None, pa.py_buffer(whole)])


def list_type(value: pa.DataType, size: int) -> pa.DataType:
    """Return the type of a list of `size` values, none of them null."""
    return pa.list_(pa.field("element", value, nullable=False), size)


def list_values(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of fixed-size lists, or of values of as many bytes, as (N, K)."""
    whole = column.combine_chunks()
    if pa.types.is_fixed_size_binary(whole.type):
        width = whole.type.byte_width
        flat = np.frombuffer(whole.buffers()[1], np.uint8, len(whole) * width, whole.offset * width)
    else:
        flat = whole.flatten().to_numpy(zero_copy_only=False)
    values: np.ndarray = flat.reshape(len(whole), -1)
    return values


def column_values(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers or flags as (N,)."""
    values: np.ndarray = column.to_numpy()
    return values


def pack_metadata(facts: Mapping[str, Any], **others: str) -> dict[bytes, bytes]:
    """Return schema metadata: our facts as JSON, and other entries under their own names."""
    # Page checksums do not cover the footer, where a flipped digit would change every row.
    sealed = {"facts": dict(facts), "sha256": _seal(facts)}
    own = {METADATA_KEY: json.dumps(sealed, sort_keys=True).encode()}
    return own | {name.encode(): text.encode() for name, text in others.items()}


def unpack_metadata(file: pq.ParquetFile, *, where: str) -> dict[str, Any]:
    """Return our facts from the schema metadata.

    Raises:
        DataError: there are none, because distill did not write the file, or they are damaged.
    """
    try:
        sealed = json.loads((file.schema_arrow.metadata or {})[METADATA_KEY])
        facts: dict[str, Any] = sealed["facts"]
        if _seal(facts) == sealed["sha256"]:
            return facts
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{where}: its metadata lacks the facts that distill writes, or they are damaged. "
        f"Use a shard of a distill store, or recreate the shard."
    )


def _seal(facts: Mapping[str, Any]) -> str:
    return sha256(json.dumps(dict(facts), sort_keys=True).encode())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
