"""The draws of random resized crops, and the boxes that they are in an image of any size.

A draw does not know the image. It is made where all draws are made, and becomes a box where the
image is decoded.

Axes: n images, T tries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRIES = 10  # attempts of torchvision's RandomResizedCrop before its fallback to a central crop
RATIO = (3 / 4, 4 / 3)  # width / height


@dataclass(frozen=True, slots=True)
class CropDraws:
    """One draw per image of torchvision's RandomResizedCrop."""

    areas: np.ndarray  # (n, T) float64: of the crop, over that of the image
    ratios: np.ndarray  # (n, T) float64: its width over its height
    places: np.ndarray  # (n, 2) float64 in [0, 1): of its top and left among those that it can have
    bounds: tuple[float, float] = RATIO  # of the ratio

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        count: int,
        scale: tuple[float, float],
        bounds: tuple[float, float] = RATIO,
    ) -> CropDraws:
        """Draw for `count` images.

        Args:
            rng: source of the draws.
            count: n.
            scale: bounds of the crop's area as fractions of the image.
            bounds: of the crop's width over its height.
        """
        areas = rng.uniform(scale[0], scale[1], (count, TRIES))
        ratios = np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), (count, TRIES)))
        return cls(areas, ratios, np.stack([rng.random(count), rng.random(count)], axis=1), bounds)

    def rows(self, index: np.ndarray) -> CropDraws:
        """Return the draws of some of the images."""
        return CropDraws(self.areas[index], self.ratios[index], self.places[index], self.bounds)

    def boxes(self, height: int, width: int) -> np.ndarray:
        """Return the crops in images of one size, (n, 4) int32: top, left, height, width.

        The first try that fits is used, as by torchvision's RandomResizedCrop.get_params; if none
        does, the largest central crop of a legal ratio.
        """
        area = height * width * self.areas
        widths = np.rint(np.sqrt(area * self.ratios)).astype(np.int64)
        heights = np.rint(np.sqrt(area / self.ratios)).astype(np.int64)
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        chosen, valid = (np.arange(len(fits)), fits.argmax(axis=1)), fits.any(axis=1)
        central = self._central(height, width)
        down, across = (
            np.where(valid, sizes[chosen], size)
            for sizes, size in zip((heights, widths), central, strict=True)
        )
        top = np.floor(self.places[:, 0] * (height - down + 1))
        left = np.floor(self.places[:, 1] * (width - across + 1))
        top = np.where(valid, top, (height - down) // 2)
        left = np.where(valid, left, (width - across) // 2)
        return np.stack([top, left, down, across], axis=1).astype(np.int32)

    def _central(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the crop of an image that no try fits."""
        low, high = self.bounds
        if width < low * height:
            return round(width / low), width
        if width > high * height:
            return height, round(height * high)
        return height, width


@dataclass(frozen=True, slots=True)
class Rendition:
    """A way to make squares of n images."""

    scaled: bool = False  # JPEG may be decoded at 1/2, 1/4 or 1/8 of its size
    crops: CropDraws | None = None  # one per image, cut from the whole image; None: the square

    def rows(self, index: np.ndarray) -> Rendition:
        """Return the rendition of some of the images."""
        return self if self.crops is None else Rendition(self.scaled, self.crops.rows(index))


SQUARES = Rendition()
