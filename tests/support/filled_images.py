"""A program: the peak memory of two ways to bring the images of some shards into one array.

    python -m tests.support.filled_images

It prints the bytes of the pixels, and by how much the resident memory of this process grew, at
most, for a copy of all shards and for the array that processes share.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from distill_core.posttrain.images import TrainingImages, shared_images
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import ImageRows, decode_images, encode_images

SHARDS, IMAGES, SIDE = 30, 25, 64


def shard(number: int) -> bytes:
    """Return a stored shard."""
    names = tuple(ImageId(number, f"class_{number}", n) for n in range(IMAGES))
    drawn = np.random.default_rng(number).integers(0, 256, (IMAGES, 3, SIDE, SIDE), np.uint8)
    return encode_images(ImageRows(names, drawn), encoding="png", losses={})


def growth(fill: Callable[[Callable[[int], ImageRows]], TrainingImages]) -> int:
    """Return the most memory that was taken beyond what there was before."""
    files = [shard(number) for number in range(SHARDS)]
    decode_images(files[0])  # so that what is imported on first use is there
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    images = fill(lambda number: decode_images(files[number]))
    assert int(images.pixels.max()) == 255  # reads, and so maps, every page
    return resident("VmHWM") - before


def resident(kind: str) -> int:
    """Return the bytes of this process that are in memory now, VmRSS, or were at most, VmHWM."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def main() -> None:
    """Print the bytes of the pixels, of the copy and of the shared array."""
    digests = [f"{number:064x}" for number in range(SHARDS)]
    size = SHARDS * IMAGES * 3 * SIDE**2
    copied = growth(lambda read: TrainingImages.of([read(n) for n in range(SHARDS)]))
    shared = growth(lambda read: shared_images(digests, read, size=size))
    print(size, copied, shared)


if __name__ == "__main__":
    main()
