"""Real images by class, and the input that a network takes of them.

Axes: n images of a class, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from distill_core.data.streamed import Images, StreamedImages
from distill_core.errors import DataError
from distill_core.models.teacher import FORWARD_BATCH, FrozenTeacher
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.upload import upload

RowNumbers = np.ndarray  # (n,) int64, of real images


@dataclass(frozen=True)
class ClassImages:
    """The readable real training images of a dataset, by class; nothing is read in advance."""

    rows_of: Callable[[int], RowNumbers]  # class id -> its rows
    pixels_of: Callable[[RowNumbers], np.ndarray]  # (n,) rows -> (n, 3, S, S) uint8
    side: int | None = None  # S; None: images are read all at once

    def rows(self, label: int, wnid: str) -> RowNumbers:
        """Return the rows of a class, at least one.

        Raises:
            DataError: the class has no image.
        """
        rows = self.rows_of(label)
        if len(rows) == 0:
            raise DataError(f"class {wnid}: no real image to start from. Use init: gaussian.")
        return rows

    def streamed(self, rows: RowNumbers) -> Images:
        """Return images that are read while forward passes go through them."""
        if self.side is None:
            return self.pixels_of(rows)
        return StreamedImages(rows, self.pixels_of, side=self.side, batch=FORWARD_BATCH)


def forward_batches(images: Images) -> Iterator[np.ndarray]:
    """Yield images, or rows of images, as many at a time as one forward pass takes."""
    for start in range(0, len(images), FORWARD_BATCH):
        yield images[start : start + FORWARD_BATCH]


def normalised(network: FrozenTeacher, pixels: np.ndarray | Tensor) -> Tensor:
    """Return (B, 3, S, S) uint8 pixels as a network takes them: on its device, normalised.

    A tensor is there already."""
    space = PixelSpace.of(network.spec.mean, network.spec.std, network.head.weight)
    if isinstance(pixels, np.ndarray):
        pixels = upload(pixels, network.head.weight.device)
    return space.normalise(pixels)
