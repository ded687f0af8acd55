"""RandAugment on tensors equals RandAugment on Pillow images."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageEnhance, ImageOps
from torchvision.transforms import RandAugment

from distill_core.config.students import RandAugmentConfig
from distill_core.seeds import generator
from distill_core.transforms.pixel_operations import KINDS, MOVES
from distill_core.transforms.rand_augment import (
    TIMM,
    TORCHVISION,
    Operations,
    apply_operations,
    sample_operations,
)

SIDE, FILL = 24, (0.5, 0.4, 0.3)
LEVELS = (0.0, 2.5, 6.0, 7.3, 10.0)


def pictures(count: int) -> torch.Tensor:
    """Return smooth images that leave some of the range unused, (count, 3, S, S) uint8."""
    coarse = np.random.default_rng(3).integers(20, 200, (count, 6, 6, 3)).astype(np.uint8)
    large = [
        np.array(Image.fromarray(c).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for c in coarse
    ]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).contiguous()


def as_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def with_pillow(kind: str, image: Image.Image, level: float) -> Image.Image:
    """Return what timm does at a level, spelled out with Pillow."""
    share = level / 10
    enhancers = {
        "colour": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if kind in enhancers:
        return enhancers[kind](image).enhance(share * 1.8 + 0.1)
    if kind == "solarize_add":
        table = [min(255, n + int(share * 110)) if n < 128 else n for n in range(256)]
        return image.point(table * 3)
    if kind == "posterize" and not int(share * 4):
        return ImageChops.constant(image.getchannel(0), 0).convert("RGB")
    done = {
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
        "posterize": lambda i: ImageOps.posterize(i, int(share * 4)),
        "solarize": lambda i: ImageOps.solarize(i, min(256, int(share * 256))),
    }[kind](image)
    assert isinstance(done, Image.Image)
    return done


def moved(kind: str, image: Image.Image, level: float) -> Image.Image:
    """Return the same for what moves pixels."""
    share, fill = level / 10, tuple(round(255 * c) for c in FILL)
    if kind == "rotate":
        return image.rotate(share * 30, Image.Resampling.BILINEAR, fillcolor=fill)
    data = {
        "shear_x": (1, share * 0.3, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, share * 0.3, 1, 0),
        "translate_x": (1, 0, share * 0.45 * SIDE, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, share * 0.45 * SIDE),
    }[kind]
    return image.transform(
        image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=fill
    )


def once(kind: str, images: torch.Tensor, level: float) -> torch.Tensor:
    kinds = np.full((len(images), 1), KINDS.index(kind) + 1, np.uint8)
    argument = TIMM[kind](np.array(abs(level) / 10), np.array(np.sign(level)))
    arguments = np.full((len(images), 1), argument, np.float32)
    return apply_operations(images, Operations(kinds, arguments), fill=FILL)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in MOVES])
def test_colour_operations_equal_those_of_pillow(kind: str) -> None:
    images = pictures(4)
    for level in LEVELS:
        made = once(kind, images, level)
        for n in range(len(images)):
            expected = np.array(with_pillow(kind, as_image(images[n]), level)).transpose(2, 0, 1)
            off = np.abs(made[n].numpy().astype(int) - expected)
            assert off.max() <= 1, (level, off.max())
            assert (off == 0).mean() > 0.99


@pytest.mark.parametrize("kind", list(MOVES))
@pytest.mark.parametrize("level", [-7.0, -4.0, 0.0, 3.0, 7.0])
def test_geometric_operations_equal_those_of_pillow_away_from_the_border(
    kind: str, level: float
) -> None:
    images = pictures(2)
    made = once(kind, images, level)
    for n in range(len(images)):
        expected = np.array(moved(kind, as_image(images[n]), level)).transpose(2, 0, 1)
        off = np.abs(made[n].numpy().astype(int) - expected).max(0)
        assert (off <= 2).mean() > 0.85  # Pillow has a hard edge where ours blends
        assert off[SIDE // 2 - 2 : SIDE // 2 + 2, SIDE // 2 - 2 : SIDE // 2 + 2].max() <= 2


def test_a_draw_replays_exactly_row_by_row_and_in_any_batch() -> None:
    config = RandAugmentConfig(operations=3, magnitude=6, spread=1, chance=0.8)
    drawn, images = sample_operations(generator(2), config, count=50), pictures(50)
    whole = apply_operations(images, drawn, fill=FILL)
    assert torch.equal(whole, apply_operations(images, drawn, fill=FILL))
    for rows in (np.array([7]), np.array([49, 0, 3]), np.arange(50)[::-1].copy()):
        part = apply_operations(images[rows], drawn.rows(rows), fill=FILL)
        assert torch.equal(part, whole[rows])


def test_draws_have_the_stated_shape_range_and_chance() -> None:
    config = RandAugmentConfig(operations=2, magnitude=6, spread=1, chance=0.5)
    drawn = sample_operations(generator(2), config, count=4000)
    assert drawn.kinds.shape == drawn.arguments.shape == (4000, 2)
    assert (drawn.kinds == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert set(drawn.kinds[drawn.kinds > 0].tolist()) == set(range(1, len(KINDS) + 1))
    degrees = drawn.arguments[drawn.kinds == KINDS.index("rotate") + 1]
    assert np.abs(degrees).mean() == pytest.approx(18, abs=1)
    assert np.abs(degrees).max() <= 30
    negative = np.unique(drawn.kinds[drawn.arguments < 0])
    assert {KINDS[kind - 1] for kind in negative} == set(MOVES)


def test_the_space_named_torchvision_equals_that_of_torchvision() -> None:
    """Its operations, and what it passes to each of them at magnitude 9 of 30."""
    config = RandAugmentConfig(space="torchvision", operations=1, magnitude=3, chance=1)
    drawn = sample_operations(generator(2), config, count=4000)
    theirs = RandAugment()._augmentation_space(31, (SIDE, SIDE))
    assert len(TORCHVISION) == len(theirs)
    assert (drawn.kinds == 0).mean() == pytest.approx(1 / 14, abs=0.02)  # the identity
    for name, (magnitudes, signed) in theirs.items():
        kind = re.sub("(?<=[a-z])(?=[XY])", "_", name).lower().replace("color", "colour")
        if kind in ("identity", "autocontrast", "equalize"):
            continue
        passed = set(drawn.arguments[drawn.kinds == KINDS.index(kind) + 1].tolist())
        magnitude = float(magnitudes[9])
        expected = {magnitude, -magnitude} if signed else {magnitude}
        if kind.startswith("translate"):
            expected = {m / SIDE for m in expected}
        if kind in ("brightness", "colour", "contrast", "sharpness"):
            expected = {1 + m for m in expected}
        assert sorted(passed) == pytest.approx(sorted(expected), rel=1e-5), kind


def test_pixels_from_outside_the_image_have_the_fill_colour() -> None:
    made = once("translate_x", pictures(1), 10.0)[0]
    outside = made[:, :, -math.floor(0.45 * SIDE) + 1 :]
    expected = torch.tensor([math.floor(255 * c + 0.5) for c in FILL], dtype=torch.uint8)
    assert (outside == expected[:, None, None]).all()
