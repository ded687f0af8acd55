"""One shard of the stage `pack`: the images of a block of classes, read, packed and written.

At most one pack is in memory, twice while it is written, and the images of one window with their
sources.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_core.config.data import DataConfig
from distill_core.config.packs import PackConfig
from distill_core.data.decoding.fetch import EncodedImages
from distill_core.data.index import DatasetIndex
from distill_core.data.packing.encode import packed_image
from distill_core.data.packs.addresses import TABLE, PackedImage, encode_table
from distill_core.data.packs.blocks import STAGE, PackBlock, pack_blocks
from distill_core.errors import DataError
from distill_core.machine_share import cpu_share
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256
from distill_core.storage.markers import ShardFacts
from distill_core.storage.pieces import PieceWriter
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

WINDOW = 1024  # images that are read together, in the order of their files; at most
WINDOW_BYTES = 2**26  # of their sources
THREADS = 2  # that encode at most; Pillow holds the GIL during some of the work


def source_config(data: DataConfig) -> DataConfig:
    """Return the config of a dataset whose images are read from their source."""
    return data.model_copy(update={"pack": None})


def write_block(
    writer: PieceWriter,
    data: DataConfig,
    index: DatasetIndex,
    block: PackBlock,
    *,
    progress: Progress = silent,
) -> ShardFacts:
    """Write the packs and the table of a block; the caller commits them.

    Args:
        writer: of its shard.
        data: of the dataset, with packs.
        index: of the dataset.
        block: one of its blocks.
        progress: called with (images packed, images in total).

    Returns:
        What its marker records.

    Raises:
        DataError: an image is missing, or is not the one that was ingested.
        StorageError: the store refused.
    """
    assert data.pack is not None
    since, images = time.perf_counter(), list[PackedImage]()
    store = None if index.store is None else index.store.url
    source, total = EncodedImages(source_config(data), store), 0
    with ThreadPoolExecutor(min(THREADS, cpu_share())) as pool:
        for rows in _windows(index, block):
            total += pc.sum(rows["size"]).as_py()
            for image, digest in zip(
                _packed(source, rows, data.pack, pool), rows["sha256"].to_pylist(), strict=True
            ):
                pack, offset = writer.append(image)
                own = bytes.fromhex(sha256(image))
                images.append(PackedImage(pack, offset, len(image), own, bytes.fromhex(digest)))
            progress(len(images), block.images)
    writer.flush()
    writer.put(TABLE, encode_table(images))
    packed = sum(image.size for image in images)
    return ShardFacts(
        rows=len(images),
        classes=block.last - block.first,
        seconds=time.perf_counter() - since,
        device="cpu",
        summary={"bytes": packed, "source_bytes": total},
    )


def pack_dataset(
    data: DataConfig, index: DatasetIndex, store: Store, *, progress: Progress = silent
) -> None:
    """Write the packs of a whole dataset in this process, but for those that exist.

    Args:
        data: of the dataset, with packs.
        index: of the dataset, in `store`.
        store: where the packs are kept.
        progress: called with (images packed, images in total).

    Raises:
        DataError: see `write_block`.
        StorageError: the store refused.
    """
    assert data.pack is not None
    shard_store, done = ShardStore(store, STAGE), 0
    blocks = pack_blocks(index, data.pack, data)
    total = sum(block.images for block in blocks)
    for block in blocks:
        if shard_store.marker(block.key) is None:
            writer = PieceWriter(shard_store, block.key, data.pack.pack_bytes)
            try:
                facts = write_block(writer, data, index, block)
            except BaseException:
                writer.discard()
                raise
            writer.commit(block.name, facts)
        done += block.images
        progress(done, total)


def _windows(index: DatasetIndex, block: PackBlock) -> Iterator[pa.Table]:
    """Yield the readable rows of a block in the order of the index, some at a time."""
    table = index.tables[block.split]
    rows = np.concatenate([table.rows_of(label) for label in range(block.first, block.last)])
    for start in range(0, len(rows), WINDOW):
        window = table.take(rows[start : start + WINDOW])
        ends = np.cumsum(window["size"].to_numpy())
        first = 0
        while first < len(ends):
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + WINDOW_BYTES, side="right")))
            yield window.slice(first, last - first)
            first = last


def _packed(
    source: EncodedImages, rows: pa.Table, pack: PackConfig, pool: ThreadPoolExecutor
) -> list[bytes]:
    """Return the images of some rows as they are packed.

    They are read in the order of their files, because neighbours are cheaper to read together.
    """
    keys = [("uri", "ascending"), ("offset", "ascending")]
    order = pc.sort_indices(rows, sort_keys=keys)
    sorted_rows = rows.take(order)
    found, digests = source.fetch(sorted_rows), sorted_rows["sha256"].to_pylist()

    def one(number: int) -> bytes:
        where = source.where(sorted_rows, number)
        if sha256(found[number]) != digests[number]:
            raise DataError(
                f"{where}: not the image that was ingested. Restore it, or start a new run."
            )
        return packed_image(found[number], pack, where=where)

    packed = [b""] * len(found)
    for place, image in zip(order.to_pylist(), pool.map(one, range(len(found))), strict=True):
        packed[place] = image
    return packed
