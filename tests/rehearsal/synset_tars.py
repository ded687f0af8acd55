"""Tiny JPEGs of many classes in a bucket, one archive per class, as ImageNet is distributed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from distill_core.storage.filesystems import open_filesystem
from tests.support.sources import tar_bytes

SIDE = 16  # pixels
BLOCKS = 4  # of a colour of their own, per side: what tells a class from another
NOISE = 25.0  # standard deviation, of 255
UPLOADS = 8  # at the same time


def upload(url: str, *, classes: int, images: int) -> int:
    """Write ``<url>/train/<wnid>.tar`` for every class; return the bytes that they take.

    Args:
        url: of a prefix in a bucket.
        classes: how many.
        images: of each class.
    """
    fs, root = open_filesystem(f"{url}/train")

    def put(number: int) -> int:
        data = tar_bytes(members(number, images))
        fs.pipe_file(f"{root}/{wnid_of(number)}.tar", data)
        return len(data)

    with ThreadPoolExecutor(UPLOADS) as threads:
        return sum(threads.map(put, range(classes)))


def wnid_of(number: int) -> str:
    """Return the name of a class."""
    return f"n{number:08d}"


def members(number: int, images: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every image of a class; the same ones each time."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(40, 216, (BLOCKS, BLOCKS, 3))
    colours = blocks.repeat(SIDE // BLOCKS, axis=0).repeat(SIDE // BLOCKS, axis=1)
    noise = rng.normal(0, NOISE, (images, SIDE, SIDE, 3))
    pixels = (colours + noise).clip(0, 255).astype(np.uint8)
    for place in range(images):
        stream = io.BytesIO()
        Image.fromarray(pixels[place]).save(stream, "JPEG", quality=75)
        yield f"{wnid_of(number)}_{place}.JPEG", stream.getvalue()
