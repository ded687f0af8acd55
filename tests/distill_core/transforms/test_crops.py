"""Crops of a whole batch and of single images in integer levels give the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from distill_core.config.recovery_settings import RollConfig
from distill_core.config.students import LEVELS_FROM
from distill_core.seeds import generator
from distill_core.transforms.crops import crop_dtype, crop_pixels
from distill_core.transforms.views import View, sample_view

ROLL = RollConfig(mode="symmetric", pixels=5)
COUNT = 12


def pixels_of(side: int) -> torch.Tensor:
    levels = generator(0).integers(0, 256, (COUNT, 3, side, side), dtype=np.uint8)
    return torch.from_numpy(levels)


def view_of(side: int, *, scale: tuple[float, float] | None = (0.08, 1.0)) -> View:
    flip = scale is not None
    roll = ROLL if flip else None
    return sample_view(generator(1), count=COUNT, side=side, scale=scale, flip=flip, roll=roll)


def exact(pixels: torch.Tensor, view: View) -> torch.Tensor:
    """Show a view in float64, image by image, with torchvision's own operations."""
    size, shown = [pixels.shape[-1]] * 2, []
    for image, box, flip, roll in zip(
        pixels.double(), view.boxes, view.flips, view.rolls, strict=True
    ):
        bilinear = InterpolationMode.BILINEAR
        cut = tv.resized_crop(image, *box.tolist(), size, bilinear, antialias=False)
        shown.append(torch.roll(tv.hflip(cut) if flip else cut, tuple(roll.tolist()), (-2, -1)))
    return torch.stack(shown)


@pytest.mark.parametrize("side", [16, 32, LEVELS_FROM - 1])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_small_crops_are_exact(side: int, dtype: torch.dtype, within: float) -> None:
    pixels, view = pixels_of(side), view_of(side)
    shown = crop_pixels(pixels, view, dtype=dtype)
    assert shown.dtype == dtype
    torch.testing.assert_close(shown.double(), exact(pixels, view), rtol=0, atol=within)


@pytest.mark.parametrize("side", [LEVELS_FROM, 225])
def test_large_crops_are_within_a_level_and_on_average_far_closer(side: int) -> None:
    pixels, view = pixels_of(side), view_of(side)
    shown = crop_pixels(pixels, view, dtype=torch.float32)
    assert shown.dtype == torch.uint8
    off = (shown.double() - exact(pixels, view)).abs()
    assert off.max() <= 1.01  # white noise: two roundings, and weights of 16 bits
    assert off.mean() < 0.3  # of a level: rounding alone is 0.25


def test_large_crops_are_exact_in_float64() -> None:
    pixels, view = pixels_of(LEVELS_FROM), view_of(LEVELS_FROM)
    shown = crop_pixels(pixels, view, dtype=torch.float64)
    torch.testing.assert_close(shown, exact(pixels, view), rtol=0, atol=1e-10)


@pytest.mark.parametrize("side", [16, LEVELS_FROM])
def test_a_crop_of_the_whole_image_keeps_its_pixel_levels(side: int) -> None:
    pixels = pixels_of(side)
    shown = crop_pixels(pixels, view_of(side, scale=None), dtype=torch.float32)
    assert torch.equal(shown.to(torch.uint8), pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_crops_are_computed_in_uint8_from_a_certain_side_on(dtype: torch.dtype) -> None:
    assert crop_dtype(LEVELS_FROM, dtype) == torch.uint8
    assert crop_dtype(LEVELS_FROM - 1, dtype) == dtype
