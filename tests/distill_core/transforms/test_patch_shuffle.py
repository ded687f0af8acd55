from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.seeds import generator
from distill_core.transforms.patch_shuffle import apply_patches, sample_patches

COUNT, SIDE = 40, 12


def published(image: torch.Tensor, orders: np.ndarray) -> torch.Tensor:
    """Return what RDED's `ShufflePatches` makes of (3, S, S): columns first, then rows."""
    rows, columns = orders.tolist()
    width = image.shape[-1] // len(rows)

    def shuffled(part: torch.Tensor, order: list[int]) -> torch.Tensor:
        return torch.cat([part[..., n * width : (n + 1) * width] for n in order], -1)

    across = shuffled(image, columns).permute(0, 2, 1)
    return shuffled(across, rows).permute(0, 2, 1)


@pytest.mark.parametrize("grid", [2, 3, 4])
def test_patches_are_shuffled_as_published(grid: int) -> None:
    images = torch.arange(COUNT * 3 * SIDE**2).view(COUNT, 3, SIDE, SIDE)
    orders = sample_patches(generator(4), count=COUNT, grid=grid)
    made = apply_patches(images, orders)
    for n in range(COUNT):
        assert torch.equal(made[n], published(images[n], orders[n]))


def test_every_order_of_two_by_two_patches_occurs_and_images_differ() -> None:
    orders = sample_patches(generator(4), count=200, grid=2)
    found, times = np.unique(orders.reshape(200, -1), axis=0, return_counts=True)
    assert len(found) == 4
    assert times.min() > 30


def test_shuffling_only_moves_patches_and_leaves_its_input_unchanged() -> None:
    images = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
    before = images.clone()
    made = apply_patches(images, sample_patches(generator(1), count=COUNT, grid=3))
    assert made.dtype == torch.uint8
    assert torch.equal(made.flatten(2).sort().values, images.flatten(2).sort().values)
    assert torch.equal(images, before)
