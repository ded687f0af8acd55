"""Where recover starts: noise, or real images. Pixels live in the teacher's normalised space.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.schema import Triple
from distill_core.errors import DataError
from distill_core.plan import Batch
from distill_core.seeds import generator, philox_key


@dataclass(frozen=True, slots=True)
class PixelSpace:
    """The one place where uint8 pixels become normalised tensors, and back."""

    mean: Tensor  # (1, 3, 1, 1)
    std: Tensor

    @classmethod
    def of(cls, mean: Triple, std: Triple, like: Tensor) -> PixelSpace:
        """Return the space of a teacher, with dtype and device of `like`."""
        mean_, std_ = (
            torch.tensor(v, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
            for v in (mean, std)
        )
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


def gaussian(batch: Batch, side: int, *, seed: int) -> np.ndarray:
    """Return N(0, 1) noise, (B, 3, S, S) float32, in normalised space; not clamped, as published.

    Source: arXiv:2306.13092 (SRe2L), section 3.2.
    """
    rng = generator(philox_key(seed, "recover", "start", batch))
    return rng.standard_normal((len(batch), 3, side, side), dtype=np.float32)


def choose_real_rows(
    batch: Batch, rows_of: Callable[[int], Sequence[int] | np.ndarray], *, seed: int
) -> list[int]:
    """Choose one real image per synthetic one; a class repeats none until all are used.

    Args:
        batch: the images to start.
        rows_of: class id -> rows of its readable real images.
        seed: the run's seed.

    Raises:
        DataError: a class has no real image.
    """
    return [_choose(rows_of(i.label), i.wnid, i.ipc_index, seed=seed) for i in batch]


def _choose(rows: Sequence[int] | np.ndarray, wnid: str, ipc_index: int, *, seed: int) -> int:
    if len(rows) == 0:
        raise DataError(f"class {wnid}: no real image to start from. Use init: gaussian.")
    order = generator(philox_key(seed, "recover", f"real/{wnid}")).permutation(len(rows))
    return int(rows[order[ipc_index % len(rows)]])
