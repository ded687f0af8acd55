"""Blocks of rows that are read from a store once, and from a local disk after that.

An index is merged in several passes over its blocks, and each block lies in the shards of many
parts: without this, every pass would read every shard again, a request each in a bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather

Load = Callable[[int], pa.Table]  # reads a block by its number


def keep_blocks(load: Load, folder: Path) -> Load:
    """Return a function that reads each block with `load` once.

    A block that the disk has no room for is read with `load` again.

    Args:
        load: reads a block.
        folder: for the blocks, one file each; it need not exist.
    """

    def read(number: int) -> pa.Table:
        path = folder / f"{number}.arrow"
        if path.exists():
            return feather.read_table(path, memory_map=False)
        table = load(number)
        _write(table, path)
        return table

    return read


def _write(table: pa.Table, path: Path) -> None:
    """Write a block, whole or not at all."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(exist_ok=True)
        feather.write_feather(table, str(partial), compression="zstd")
        partial.replace(path)
    except OSError:  # no room
        with suppress(OSError):
            partial.unlink()
