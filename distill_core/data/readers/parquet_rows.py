"""The rows of a Parquet file, few enough at a time for one chunk of Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_core.data.readers.parquet_columns import Columns
from distill_core.data.readers.row_groups import part_rows


def rows_of(
    file: pq.ParquetFile, groups: Sequence[int], columns: Columns
) -> Iterator[tuple[int | None, bytes | None, str | None]]:
    """Yield label, image file and name of every row of some row groups."""
    for group in groups:
        for batch in batches_of(file, group, columns.parts):
            image = batch.column(columns.image)
            images = pc.struct_field(image, "bytes").to_pylist()
            names: list[str | None] = [None] * len(images)
            if image.type.get_field_index("path") >= 0:
                names = _texts(pc.struct_field(image, "path"))
            yield from zip(batch.column(columns.label).to_pylist(), images, names, strict=True)


def _texts(column: pa.Array) -> list[str | None]:
    """Return a column of texts; None where it holds something else, escapes for other bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return [text if isinstance(text, str) else None for text in column.to_pylist()]
    except UnicodeDecodeError:
        buffers = [text.as_buffer() for text in column]
    return [None if b is None else bytes(b).decode(errors="backslashreplace") for b in buffers]


def batches_of(
    file: pq.ParquetFile, group: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, few enough at a time for one chunk."""
    size = file.metadata.row_group(group)
    rows = part_rows(size.num_rows, size.total_byte_size)
    yield from file.iter_batches(rows, row_groups=[group], columns=columns)
