"""Augmentation: the draw of each image is what is applied to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.dispatched import Dispatched
from distill_core.config.training import AugmentConfig
from distill_core.seeds import generator
from distill_core.transforms.pixel_space import normalise
from distill_core.transforms.train_augment import (
    Augmentation,
    apply_augmentation,
    sample_augmentation,
)
from distill_core.transforms.views import View, apply_view

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
EVERYTHING = AugmentConfig(pad_crop=2, crop=(0.3, 1.0), flip=True, cutout=0.5)


def pixels(count: int = 6, side: int = 8) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=draws, dtype=torch.uint8)


def draw(config: AugmentConfig, count: int = 6, step: int = 0) -> Augmentation:
    return sample_augmentation(generator(7, step), config, count=count, side=8)


def augmented(images: Tensor, drawn: Augmentation, config: AugmentConfig) -> Tensor:
    return apply_augmentation(images, drawn, config, mean=MEAN, std=STD)


def test_normalising_follows_the_definition() -> None:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    expected = (pixels().double() / 255 - mean) / std
    torch.testing.assert_close(
        normalise(pixels(), mean=MEAN, std=STD).double(), expected, atol=1e-5, rtol=1e-5
    )


def test_without_any_augmentation_images_are_only_normalised() -> None:
    config = AugmentConfig(flip=False)
    out = augmented(pixels(), draw(config), config)
    assert torch.equal(out, normalise(pixels(), mean=MEAN, std=STD))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_windows_and_flips_are_those_of_padding_and_slicing() -> None:
    config = AugmentConfig(pad_crop=2)
    images, drawn = pixels(200), draw(config, 200)
    assert drawn.windows is not None
    assert drawn.flips is not None
    padded = pad(images, [2] * 4)
    slices = [
        padded[i, :, top : top + 8, left : left + 8] for i, (top, left) in enumerate(drawn.windows)
    ]
    expected = [cut.flip(2) if flip else cut for cut, flip in zip(slices, drawn.flips, strict=True)]
    out = augmented(images, drawn, config)
    assert torch.equal(out, normalise(torch.stack(expected), mean=MEAN, std=STD))
    assert drawn.windows.min() == 0
    assert drawn.windows.max() == 4
    assert 70 < drawn.flips.sum() < 130


def test_flips_without_windows_are_flips() -> None:
    config = AugmentConfig()
    images, drawn = pixels(40), draw(config, 40)
    assert drawn.flips is not None
    expected = [one.flip(2) if flip else one for one, flip in zip(images, drawn.flips, strict=True)]
    out = augmented(images, drawn, config)
    assert torch.equal(out, normalise(torch.stack(expected), mean=MEAN, std=STD))
    assert 10 < drawn.flips.sum() < 30


def test_holes_are_squares_around_their_centres_and_may_leave_the_image() -> None:
    config = AugmentConfig(flip=False, cutout=0.5)
    centres = np.array([[4, 4], [0, 0], [7, 3]], dtype=np.int32)
    images = torch.full((3, 3, 8, 8), 255, dtype=torch.uint8)
    out = augmented(images, Augmentation(None, None, None, centres), config)
    erased = out[:, 0] == 0
    assert erased.sum((1, 2)).tolist() == [16, 4, 12]
    assert bool(erased[0, 2:6, 2:6].all())
    assert bool(erased[1, :2, :2].all())
    assert bool(erased[2, 5:, 1:5].all())


def test_crops_are_views() -> None:
    config = AugmentConfig(flip=False, crop=(0.2, 0.6))
    drawn = draw(config)
    assert isinstance(drawn.crops, View)
    assert not drawn.crops.flips.any()
    expected = apply_view(normalise(pixels(), mean=MEAN, std=STD), drawn.crops, out=8)
    torch.testing.assert_close(augmented(pixels(), drawn, config), expected)


def written_out(images: Tensor, drawn: Augmentation, config: AugmentConfig) -> Tensor:
    """Return what the definition gives, in float32, one image after another."""
    margin, found = config.pad_crop, []
    scale = torch.tensor([1 / (255 * s) for s in STD]).view(3, 1, 1)
    offset = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)]).view(3, 1, 1)
    for number, image in enumerate(pad(images, [margin] * 4)):
        top, left = (0, 0) if drawn.windows is None else drawn.windows[number]
        cut = image[:, top : top + images.shape[2], left : left + images.shape[3]]
        flipped = cut.flip(2) if drawn.flips is not None and drawn.flips[number] else cut
        found.append(flipped.float() * scale + offset)
    return torch.stack(found)


@pytest.mark.parametrize("settings", [{"pad_crop": 4}, {"pad_crop": 4, "flip": False}, {}])
def test_augmented_pixels_equal_those_of_the_definition_bit_for_bit(
    settings: dict[str, int],
) -> None:
    config = AugmentConfig(**settings)  # type: ignore[arg-type]
    images = pixels(40, 32)
    drawn = sample_augmentation(generator(7, 1), config, count=40, side=32)
    out = augmented(images, drawn, config)
    assert torch.equal(out, written_out(images, drawn, config))
    assert out.is_contiguous(memory_format=torch.channels_last)
    crop = AugmentConfig(flip=False, crop=(0.2, 0.9))
    drawn = sample_augmentation(generator(7, 2), crop, count=40, side=32)
    assert drawn.crops is not None
    plain = written_out(images, Augmentation(None, None, None, None), crop)
    assert torch.equal(augmented(images, drawn, crop), apply_view(plain, drawn.crops, out=32))


def test_a_part_of_a_draw_augments_a_part_of_the_batch() -> None:
    drawn = draw(EVERYTHING)
    whole = augmented(pixels(), drawn, EVERYTHING)
    for rows in (np.array([0, 2, 5]), np.array([1, 3, 4])):
        part = augmented(pixels()[rows], drawn.take(rows), EVERYTHING)
        torch.testing.assert_close(part, whole[rows], rtol=1e-6, atol=1e-6)


def test_equal_counters_give_equal_draws_and_the_next_counter_another_one() -> None:
    first, again, other = draw(EVERYTHING), draw(EVERYTHING), draw(EVERYTHING, step=1)
    assert torch.equal(
        augmented(pixels(), first, EVERYTHING), augmented(pixels(), again, EVERYTHING)
    )
    assert first.windows is not None
    assert other.windows is not None
    assert not np.array_equal(first.windows, other.windows)


@pytest.mark.parametrize("side", [8, 9])
def test_augmented_images_keep_their_shape(side: int) -> None:
    drawn = sample_augmentation(generator(1), EVERYTHING, count=5, side=side)
    out = augmented(pixels(5, side), drawn, EVERYTHING)
    assert out.shape == (5, 3, side, side)
    assert out.dtype == torch.float32
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("config", [EVERYTHING, AugmentConfig(pad_crop=4, flip=True)])
def test_no_operation_loops_over_images(config: AugmentConfig) -> None:
    calls = []
    for count in (8, 64):
        with Dispatched() as dispatched:
            augmented(pixels(count), draw(config, count), config)
        calls.append(dispatched.calls)
    assert calls[0] == calls[1]
