"""Damage to the files of shards."""

from __future__ import annotations

from collections.abc import Callable

from distill_core.errors import DataError


def flip_bits(data: bytes, holds_what_was_stored: Callable[[bytes], bool], *, every: int) -> None:
    """Flip one bit at a time in the pages of a Parquet file, and read each damaged file.

    No damaged file may be read as something else. Most are refused; what a reader does not need,
    like a column or the statistics in a page header, may be damaged without harm.

    Args:
        data: the undamaged file.
        holds_what_was_stored: reads a file and compares it; raises DataError if it is refused.
        every: the distance between two damaged bytes.
    """
    footer = len(data) - int.from_bytes(data[-8:-4], "little") - 8
    positions, refused = range(4, footer, every), 0
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 16
        try:
            assert holds_what_was_stored(bytes(damaged)), f"byte {position} changed what is read"
        except DataError:
            refused += 1
    assert refused > len(positions) / 2
