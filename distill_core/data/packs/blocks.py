"""The division of a dataset into blocks of classes that are packed together, and their keys.

A block has the classes of consecutive ids, a power of two of them, from a multiple of that number
on. Ids are append-only and the number follows from averages, so in the next version of a dataset
the classes of a block are the same, and only blocks whose images changed are packed again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill_core.config.data import DataConfig
from distill_core.config.packs import VERSION, PackConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import SPLITS
from distill_core.data.readers.record import Split
from distill_core.storage.digest import sha256

STAGE = "pack"  # folder of the shards
# Bytes of a photograph, measured on 100 of ImageNet-1K (103,859 bytes, 500 x 379 pixels on average)
PER_PIXEL = ((80, 90, 95), (0.22, 0.31, 0.43))  # of a smaller copy, by the quality of JPEG
SHORT_EDGE_AREA = 1.31  # pixels of a copy, in squares of its short side
ORIGINAL = 2.1  # of the source, in squares of the side that stages see: 105 kB at 224, 8.6 kB at 64


@dataclass(frozen=True)
class PackBlock:
    """The classes of a split that are packed together."""

    split: Split
    first: int  # id of the first class
    last: int  # id after the last class
    images: int  # readable ones
    start: int  # number of the first of them among the readable images of the split
    key: str

    @property
    def name(self) -> str:
        """Return what people call the block; unique in a dataset."""
        return f"{self.split}_c{self.first:05d}-{self.last - 1:05d}"


def pack_blocks(
    index: DatasetIndex, pack: PackConfig, data: DataConfig, splits: Sequence[Split] = SPLITS
) -> tuple[PackBlock, ...]:
    """Return the blocks of a dataset that have images; no row of the index is read."""
    return tuple(
        block for split in splits for block in _blocks_of(index, pack, split, image_bytes(data))
    )


def image_bytes(data: DataConfig) -> float:
    """Return the estimated bytes of a packed image."""
    original = ORIGINAL * data.side**2
    pack = data.pack
    if pack is None or pack.size is None:
        return original
    area = pack.size**2 * (SHORT_EDGE_AREA if pack.shape == "short_edge" else 1.0)
    return min(original, area * float(np.interp(pack.quality, *PER_PIXEL)))


def block_classes(images: float, classes: int, pack: PackConfig, each: float) -> int:
    """Return how many classes a block has: a power of two.

    Args:
        images: readable images of the split.
        classes: all ids, removed classes included.
        pack: the size of a pack.
        each: estimated bytes of an image.
    """
    per_class = max(1.0, images * each / max(1, classes))
    count = 1
    while count < classes and 2 * count * per_class <= pack.pack_bytes:
        count *= 2
    return count


def _blocks_of(index: DatasetIndex, pack: PackConfig, split: Split, each: float) -> list[PackBlock]:
    counts = index.tables[split].counts.readable
    starts = np.concatenate([[0], np.cumsum(counts)])
    step = block_classes(int(starts[-1]), len(counts), pack, each)
    bounds = [(n, min(n + step, len(counts))) for n in range(0, len(counts), step)]
    return [
        PackBlock(
            split,
            first,
            last,
            int(starts[last] - starts[first]),
            int(starts[first]),
            _key(index, pack, split, [n for n in range(first, last) if counts[n]]),
        )
        for first, last in bounds
        if starts[last] > starts[first]
    ]


def _key(index: DatasetIndex, pack: PackConfig, split: Split, labels: Sequence[int]) -> str:
    """Return the key of a block: the content of its images, and what packing makes of them.

    It contains neither ids nor addresses of images, and not the size of packs. The content of the
    test split is known as a whole only.
    """
    wnids = [index.classes[label].wnid for label in labels]
    content = [[wnid, index.fingerprints[wnid]] for wnid in wnids] if split == "train" else wnids
    parts = {
        "stage": STAGE,
        "version": VERSION,
        "pixels": pack.pixels,
        "split": split,
        "content": content,
        "test": None if split == "train" else index.test_fingerprint,
    }
    return sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())[:32]
