"""Pixels as uint8, and in the normalised space of a teacher.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill_core.config.fields import Triple


@dataclass(frozen=True, slots=True)
class PixelSpace:
    """The one place where uint8 pixels become normalised tensors, and back."""

    mean: Tensor  # (1, 3, 1, 1)
    std: Tensor

    @classmethod
    def of(cls, mean: Triple, std: Triple, like: Tensor) -> PixelSpace:
        """Return the space of a teacher, with dtype and device of `like`."""
        mean_, std_ = (like.new_tensor(v).view(1, 3, 1, 1) for v in (mean, std))
        return cls(mean_, std_)

    @property
    def low(self) -> Tensor:
        """Return the lower corner of the valid box, where pixels are 0."""
        return -self.mean / self.std

    @property
    def high(self) -> Tensor:
        """Return the upper corner of the valid box, where pixels are 1."""
        return (1 - self.mean) / self.std

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (B, 3, S, S) as normalised floats."""
        return (pixels.to(self.mean) / 255 - self.mean) / self.std

    def quantise(self, images: Tensor) -> Tensor:
        """Return normalised floats as uint8 pixels, rounded to the nearest.

        Differs from the published code, which truncates and so darkens by half a level.
        """
        return ((images * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)
