"""The images that a student learns from: their names by shard, and all pixels in one array.

Processes of a machine that train on the same images share the array: it is filled shard by shard,
once, and each of them maps it.

Axes: N images of all shards, n of one, S side in pixels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from distill_core.errors import DataError
from distill_core.sharding import ImageId
from distill_core.storage.digest import sha256
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.shared_files import SharedFile, Write, shared_file

VERSION = 1  # of what is written behind the pixels
LENGTH = 8  # bytes of the number of bytes that the names take, at the end


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """All images of a set."""

    shards: tuple[tuple[ImageId, ...], ...]  # n names each, in plan order
    pixels: np.ndarray  # (N, 3, S, S) uint8, shard by shard
    file: SharedFile | None = None  # that the pixels are in; kept, so that others can join it

    @classmethod
    def of(cls, shards: Sequence[ImageRows]) -> TrainingImages:
        """Return the images of shards that are in memory; the pixels of several are copied."""
        _check_sides([rows.pixels.shape for rows in shards])
        pixels = [rows.pixels for rows in shards]
        joined = pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
        return cls(tuple(rows.images for rows in shards), joined)

    @property
    def labels(self) -> np.ndarray:
        """Return the class of every image, (N,) int64."""
        return np.array([image.label for shard in self.shards for image in shard], np.int64)

    def slices(self) -> Iterator[slice]:
        """Yield the rows of each shard."""
        cuts = np.cumsum([0, *map(len, self.shards)]).tolist()
        yield from (slice(start, stop) for start, stop in pairwise(cuts))


def shared_images(
    digests: Sequence[str], read: Callable[[int], ImageRows], *, size: int
) -> TrainingImages:
    """Return the images of shards, whose pixels the processes of this machine hold once.

    Args:
        digests: sha256 of the file of each shard, in plan order.
        read: decodes shard `n`; called only in the process that fills the array.
        size: bytes of all pixels, roughly.

    Raises:
        DataError: there is no shard, or their images differ in size.
    """

    def fill(write: Write) -> None:
        names, shapes = [], []
        for number in range(len(digests)):
            rows = read(number)
            shapes.append(rows.pixels.shape)
            _check_sides(shapes)
            write(np.ascontiguousarray(rows.pixels).data)
            names.append(rows.images)
        _check_sides(shapes)
        tree = {"side": shapes[0][-1], "shards": [list(_runs(shard)) for shard in names]}
        text = json.dumps(tree, separators=(",", ":")).encode()
        write(text)
        write(len(text).to_bytes(LENGTH, "little"))

    name = sha256(json.dumps([VERSION, *digests]).encode())
    return _mapped(shared_file(name, fill, size=size))


def _mapped(file: SharedFile) -> TrainingImages:
    """Return the images of a file that `shared_images` filled."""
    data = file.map()
    end = file.size - LENGTH
    start = end - int.from_bytes(data[end:], "little")
    tree = json.loads(data[start:end])
    shards = tuple(tuple(_names(shard)) for shard in tree["shards"])
    shape = sum(map(len, shards)), 3, tree["side"], tree["side"]
    pixels: np.ndarray = np.frombuffer(data, np.uint8, count=start).reshape(shape)
    return TrainingImages(shards, pixels, file)


def _runs(shard: tuple[ImageId, ...]) -> Iterator[tuple[int, str, list[int]]]:
    """Yield the names of a shard as JSON: a class, and the numbers of its images."""
    for (label, wnid), images in groupby(shard, key=lambda image: (image.label, image.wnid)):
        yield label, wnid, [image.ipc_index for image in images]


def _names(shard: Sequence[tuple[int, str, list[int]]]) -> Iterator[ImageId]:
    for label, wnid, indices in shard:
        wnid = sys.intern(wnid)
        yield from (ImageId(label, wnid, index) for index in indices)


def _check_sides(shapes: Sequence[tuple[int, ...]]) -> None:
    sides = sorted({shape[-1] for shape in shapes})
    if len(sides) != 1:
        raise DataError(
            f"posttrain: {len(shapes)} image shards of sides {sides}, expected shards of one side. "
            "Recreate the shards of one config."
        )
