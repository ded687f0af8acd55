"""Conversion between uint8 pixels and the normalised space of a teacher.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill_core.config.fields import Triple
from distill_core.transforms.upload import constant


@dataclass(frozen=True, slots=True)
class PixelSpace:
    """The normalisation of a teacher, with its inverse and the box of valid values."""

    mean: Tensor  # (1, 3, 1, 1)
    std: Tensor

    @classmethod
    def of(cls, mean: Triple, std: Triple, like: Tensor) -> PixelSpace:
        """Return the space of a teacher, with the dtype and device of `like`."""
        mean_, std_ = (constant(v, like).view(1, 3, 1, 1) for v in (mean, std))
        return cls(mean_, std_)

    @property
    def low(self) -> Tensor:
        """Return the lower corner of the valid box, where pixels are 0."""
        return -self.mean / self.std

    @property
    def high(self) -> Tensor:
        """Return the upper corner of the valid box, where pixels are 1."""
        return (1 - self.mean) / self.std

    def converted(self, images: Tensor, to: PixelSpace) -> Tensor:
        """Return images of this space (B, 3, S, S) in another one; differentiable."""
        shift = (self.mean - to.mean) / to.std
        return torch.addcmul(shift, images, self.std / to.std)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (B, 3, S, S) as normalised floats."""
        return (pixels.to(self.mean) / 255 - self.mean) / self.std

    def quantise(self, images: Tensor) -> Tensor:
        """Return normalised floats as uint8 pixels, rounded to the nearest.

        Differs from the published code, which truncates and thereby darkens by half a level.
        """
        return ((images * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)


def normalise(pixels: Tensor, *, mean: Triple, std: Triple) -> Tensor:
    """Return (B, 3, S, S) uint8 pixels as normalised float32, channels last.

    Faster than `PixelSpace.normalise` and rounded differently: scale and offset are applied once.
    """
    count, _, height, width = pixels.shape
    # A line of pixels is 3 S contiguous numbers, which vectorises; three channels would not.
    lines = pixels.permute(0, 2, 3, 1).reshape(count, height, 3 * width).float()
    scale = constant([1 / (255 * s) for s in std], lines).repeat(width)
    offset = constant([-m / s for m, s in zip(mean, std, strict=True)], lines).repeat(width)
    images = lines.mul_(scale).add_(offset)
    return images.view(count, height, width, 3).permute(0, 3, 1, 2)
