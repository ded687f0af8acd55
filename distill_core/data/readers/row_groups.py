"""Row groups of Parquet files held in memory, within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import pyarrow as pa

HELD_GROUPS = 16  # kept, so that a shuffled small dataset is read once
HELD_BYTES = 2**30  # of them, unless one alone is larger
PART_ROWS = 512  # decoded at a time, at most
PART_BYTES = 2**26  # likewise, on average

Group = tuple[str, int]  # file, and number of the row group in it


def part_rows(rows: int, size: int) -> int:
    """Return how many rows of a row group to decode at a time.

    Args:
        rows: of the row group.
        size: of the row group, in bytes.
    """
    return max(1, min(PART_ROWS, PART_BYTES * rows // max(1, size)))


class HeldGroups:
    """The image columns of the row groups that were read last.

    Args:
        read: reads one; several threads may call it.
    """

    def __init__(self, read: Callable[[str, int], pa.ChunkedArray]) -> None:
        self._read = read
        self._held = OrderedDict[Group, pa.ChunkedArray]()
        self._lock = Lock()

    def get(self, uri: str, group: int) -> pa.ChunkedArray:
        """Return a row group, from memory if it is held."""
        key = (uri, group)
        with self._lock:
            column = self._held.get(key)
        if column is None:
            column = self._read(uri, group)
        with self._lock:
            self._held[key] = column
            self._held.move_to_end(key)
            while len(self._held) > 1 and self._excessive():
                self._held.popitem(last=False)
        return column

    def _excessive(self) -> bool:
        size = sum(column.nbytes for column in self._held.values())
        return len(self._held) > HELD_GROUPS or size > HELD_BYTES
