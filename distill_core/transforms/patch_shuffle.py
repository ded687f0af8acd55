"""Shuffling of the rows and the columns of a grid of patches (RDED).

Axes: B images, G patches per side, S side in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distill_core.transforms.upload import upload


def sample_patches(rng: np.random.Generator, *, count: int, grid: int) -> np.ndarray:
    """Draw the order of the rows and of the columns of patches, for `count` images.

    Returns:
        (count, 2, G) uint8: sources of the rows, then of the columns, from 0 to G - 1.
    """
    orders = np.tile(np.arange(grid, dtype=np.uint8), (count, 2, 1))
    return rng.permuted(orders, axis=2)


def apply_patches(images: Tensor, orders: np.ndarray) -> Tensor:
    """Reorder the patches of (B, 3, S, S) images of any dtype, exactly, with one gather.

    Args:
        images: their side is a multiple of G.
        orders: (B, 2, G), drawn for the same B images.

    Source: arXiv:2312.03526 (RDED) and its published `ShufflePatches`, which permutes columns and
    rows of patches, not individual patches.
    """
    side = images.shape[-1] // orders.shape[-1]
    lines = orders.astype(np.int64)[..., None] * side + np.arange(side)
    rows, columns = upload(lines.reshape(len(orders), 2, -1), images.device).unbind(1)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    picked = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
