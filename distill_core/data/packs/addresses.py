"""Addresses of packed images: the table that each shard has, and rows made from these tables.

The rows have the columns by which images are fetched (see `decoding.fetch.ADDRESS`), so all that
reads images by rows of an index reads packs as well.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.config.data import DataConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.packs.blocks import STAGE, PackBlock, pack_blocks
from distill_core.data.readers.record import Split
from distill_core.errors import DataError
from distill_core.storage.markers import FileInfo
from distill_core.storage.parquet import open_parquet
from distill_core.storage.pieces import piece_suffix
from distill_core.storage.shard_store import ShardStore

TABLE = "parquet"  # suffix of the table of a shard
DIGEST = pa.binary(32)
COLUMNS = (
    ("pack", pa.int32()),  # number of the file of the shard
    ("offset", pa.int64()),  # of the first byte in it
    ("size", pa.int64()),  # bytes
    ("sha256", DIGEST),  # of them
    ("source_sha256", DIGEST),  # of the image that was packed, as in the index
)
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COLUMNS])
KEPT = "keep"  # ends the column `version`: the pack may be kept on a local disk
READERS = 16  # tables that are read at once
HEX = np.frombuffer("".join(f"{n:02x}" for n in range(256)).encode(), np.uint8).reshape(256, 2)


class PackedImage(NamedTuple):
    """The place of an image in a shard."""

    pack: int
    offset: int
    size: int
    sha256: bytes
    source_sha256: bytes


def encode_table(images: Sequence[PackedImage]) -> bytes:
    """Return the table of a shard as a Parquet file."""
    columns = list(zip(*images, strict=True)) if images else [()] * len(SCHEMA)
    arrays = [pa.array(each, kind) for each, kind in zip(columns, SCHEMA.types, strict=True)]
    stream = io.BytesIO()
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
    return stream.getvalue()


@dataclass(frozen=True)
class _Table:
    """The addresses of a block; 48 bytes an image."""

    files: Sequence[FileInfo]  # by the number of the pack
    pack: np.ndarray  # (n,) int32
    offset: np.ndarray  # (n,) int64
    size: np.ndarray  # (n,) int64
    digest: np.ndarray  # (n, 32) uint8


class PackedRows:
    """The images of a split, as rows that address them in packs.

    Args:
        data: of the dataset, with packs.
        index: of the dataset, in a store.
        split: the split.
        repeated: whether images are read often enough from this machine to keep packs on its disk.

    Raises:
        DataError: the index is in no store.
    """

    def __init__(
        self, data: DataConfig, index: DatasetIndex, split: Split, *, repeated: bool = False
    ) -> None:
        assert data.pack is not None
        if index.store is None:
            raise DataError(
                f"{data.path or data.format}: its index is in no store, and neither are packs of "
                "its images. Ingest the dataset, or remove data.pack."
            )
        self._shard_store = ShardStore(index.store, STAGE)
        self._blocks = pack_blocks(index, data.pack, data, (split,))
        self._starts = np.array([block.start for block in self._blocks], np.int64)
        self._bad, self._repeated = index.tables[split].counts.bad, repeated
        self._tables: dict[int, _Table] = {}

    def take(self, rows: np.ndarray) -> pa.Table:
        """Return the addresses of some readable rows of the index, in their order.

        Only the tables of their blocks are read, each once.

        Raises:
            DataError: a table is missing or damaged.
        """
        numbers = rows - np.searchsorted(self._bad, rows)  # among the readable rows
        blocks = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(blocks, kind="stable")
        present, firsts = np.unique(blocks[order], return_index=True)
        tables = self._tables_of(present.tolist())
        files = [info for table in tables for info in table.files]
        pack = np.zeros(len(rows), np.int64)
        offset, size = np.zeros((2, len(rows)), np.int64)
        digest, before = np.zeros((len(rows), 32), np.uint8), 0
        ends = [*firsts.tolist(), len(rows)][1:]
        for block, table, first, last in zip(present, tables, firsts, ends, strict=True):
            chosen = order[first:last]
            places = numbers[chosen] - self._starts[block]
            pack[chosen] = before + table.pack[places]
            offset[chosen], size[chosen] = table.offset[places], table.size[places]
            digest[chosen] = table.digest[places]
            before += len(table.files)
        return self._rows(files, pack, offset, size, digest)

    def _tables_of(self, blocks: Sequence[int]) -> list[_Table]:
        """Return the tables of some blocks; those that are missing are read in parallel."""
        missing = [number for number in blocks if number not in self._tables]
        if missing:
            with ThreadPoolExecutor(READERS) as pool:
                read = pool.map(self._read, [self._blocks[number] for number in missing])
                self._tables.update(zip(missing, read, strict=True))
        return [self._tables[number] for number in blocks]

    def _rows(
        self,
        files: Sequence[FileInfo],
        pack: np.ndarray,
        offset: np.ndarray,
        size: np.ndarray,
        digest: np.ndarray,
    ) -> pa.Table:
        """Return rows with the columns of `decoding.fetch.ADDRESS`."""
        text = np.ascontiguousarray(HEX[digest].reshape(len(digest), 64)).view("S64").ravel()
        versions = [
            f"{info.bytes} {info.sha256} {KEPT if self._repeated else ''}" for info in files
        ]
        return pa.table(
            {
                "uri": pa.array([info.path for info in files], pa.string()).take(pa.array(pack)),
                "offset": pa.array(offset),
                "size": pa.array(size),
                "sha256": pa.array(text, pa.binary()).cast(pa.string()),
                "version": pa.array(versions, pa.string()).take(pa.array(pack)),
            }
        )

    def _read(self, block: PackBlock) -> _Table:
        marker = self._shard_store.marker(block.key)
        if marker is None:
            raise DataError(
                f"{self._shard_store.uri(block.key)}: no such marker, so the images of "
                f"{block.name} are not packed. Run `distill resume`, which packs them."
            )
        data = self._shard_store.load(marker, TABLE)
        where = self._shard_store.store.uri(marker.file(TABLE).path)
        with open_parquet(data, where=where, columns=SCHEMA.names) as opened:
            table = opened.read(columns=["pack", "offset", "size", "sha256"]).combine_chunks()
        if table.num_rows != block.images:
            raise DataError(
                f"{where}: {table.num_rows} images, the index has {block.images} in "
                f"{block.name}. Delete {self._shard_store.uri(block.key)} and run `distill resume`."
            )
        digest = table["sha256"].chunk(0)
        raw = np.frombuffer(digest.buffers()[1], np.uint8)[32 * digest.offset :]
        packs = table["pack"].to_numpy()
        return _Table(
            [marker.file(piece_suffix(number)) for number in range(int(packs[-1]) + 1)],
            packs,
            table["offset"].to_numpy(),
            table["size"].to_numpy(),
            raw[: 32 * table.num_rows].reshape(-1, 32),
        )


def file_of(uri: str, version: str) -> tuple[FileInfo, bool]:
    """Return the pack that a row names, and whether it may be kept on a local disk.

    Args:
        uri: column of the row.
        version: column of the row.
    """
    size, digest, kept = version.split(" ")
    return FileInfo(uri.partition(".")[2], uri, int(size), digest), kept == KEPT
