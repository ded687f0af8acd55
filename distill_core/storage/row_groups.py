"""A Parquet file in a store, read one row group at a time.

Its bytes are hashed in the order of the file; once all are hashed, the sha256 must equal the
marker's. Row groups read in order cost each byte once; those that are skipped are read for the hash
alone. Until the end is reached, page checksums protect the data.
"""

from __future__ import annotations

import hashlib
import os

import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.errors import ShardError
from distill_core.storage.markers import FileInfo
from distill_core.storage.store import Store

TAIL = 2**16  # bytes that Arrow reads from the end of a file to find its footer
TRAILER = 8  # bytes: length of the footer, magic
STRIDE = 2**20  # bytes read at a time for the hash alone
# What pyarrow raises for a damaged file; names of columns that are no text are errors of Python.
PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
Span = tuple[int, int]  # first byte, byte after the last


class RowGroupFile:
    """The file-like object that Arrow reads from; for one thread at a time.

    Args:
        store: that contains the file.
        info: of the file, from its marker.
        marker: path of the marker, for errors.

    Raises:
        DataError: there is no such object.
        ShardError: it is shorter than its marker states, or has no footer.
    """

    closed = False  # read by Arrow

    def __init__(self, store: Store, info: FileInfo, *, marker: str) -> None:
        self.where = store.uri(info.path)
        self._store, self._info, self._marker = store, info, marker
        self._position, self._hashed, self._hash = 0, 0, hashlib.sha256()
        self._tail = self._read_tail()
        self._groups = self._find_groups()
        self._held: tuple[Span, bytes] = ((0, 0), b"")

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes, as files do.

        Raises:
            ShardError: every byte has been read, and their sha256 is not that of the marker.
        """
        start, size = self._position, self._info.bytes
        stop = size if count < 0 else min(start + count, size)
        self._position = max(start, stop)
        if (span := self._groups_around(start, stop)) is None:
            return self._fetch(start, stop)  # the footer
        if span != self._held[0]:
            self._held = span, self._fetch(*span)
            self._account(span[0], self._held[1])
        return self._held[1][start - span[0] : stop - span[0]]

    def __len__(self) -> int:
        """Return the size of the file in bytes."""
        return self._info.bytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte, as files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._info.bytes}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def release(self) -> None:
        """Free the row group in memory; a later read fetches it again."""
        self._held = ((0, 0), b"")

    def _read_tail(self) -> bytes:
        """Return the end of the file: the whole footer, and at least `TAIL` bytes."""
        size = self._info.bytes
        tail = self._load(max(0, size - TAIL), size)
        footer = min(size, int.from_bytes(tail[-TRAILER:][:4], "little") + TRAILER)
        return tail if footer <= len(tail) else self._load(size - footer, size)

    def _find_groups(self) -> list[Span]:
        """Return the span of each row group."""
        try:
            metadata = pq.read_metadata(pa.BufferReader(self._tail))
        except PARQUET_ERRORS:
            raise self._mismatch("no Parquet footer at its end") from None
        groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        return [_span([group.column(n) for n in range(group.num_columns)]) for group in groups]

    def _groups_around(self, start: int, stop: int) -> Span | None:
        """Return the span of the row groups that contain some bytes; None if none do."""
        touched = [span for span in self._groups if span[0] < stop and start < span[1]]
        if not touched or start < touched[0][0] or touched[-1][1] < stop:
            return None
        return touched[0][0], touched[-1][1]

    def _fetch(self, start: int, stop: int) -> bytes:
        offset = start - (self._info.bytes - len(self._tail))
        return (
            self._tail[offset : offset + stop - start] if offset >= 0 else self._load(start, stop)
        )

    def _load(self, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        data = self._store.read_range(self._info.path, start, stop - start)
        if len(data) < stop - start:
            raise self._mismatch(f"{start + len(data)} bytes")
        return data

    def _account(self, start: int, data: bytes) -> None:
        """Hash the skipped bytes before `data`, the new bytes in it, and finally the footer."""
        self._catch_up(start)
        self._update(data[max(0, self._hashed - start) :])
        if self._hashed >= self._groups[-1][1]:
            self._catch_up(self._info.bytes)
            if (digest := self._hash.hexdigest()) != self._info.sha256:
                raise self._mismatch(f"sha256 {digest[:12]}")

    def _catch_up(self, stop: int) -> None:
        while self._hashed < stop:
            self._update(self._fetch(self._hashed, min(self._hashed + STRIDE, stop)))

    def _update(self, data: bytes) -> None:
        self._hash.update(data)
        self._hashed += len(data)

    def _mismatch(self, actual: str) -> ShardError:
        return ShardError(
            f"{self.where}: {actual}; the marker states {self._info.bytes} bytes, sha256 "
            f"{self._info.sha256[:12]}. Delete {self._store.uri(self._marker)} and run again to "
            "recreate this shard."
        )


def _span(columns: list[pq.ColumnChunkMetaData]) -> Span:
    starts = [
        column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        for column in columns
    ]
    ends = [s + c.total_compressed_size for s, c in zip(starts, columns, strict=True)]
    return min(starts), max(ends)
