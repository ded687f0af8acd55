"""Views: one recorded draw of crop, flip and roll, and its exact, fixed-shape application.

Crop, bilinear resize, flip and circular shift are separable linear maps, so a view is
``out = Ay @ X @ Ax^T`` with two (out, side) matrices: fixed shapes, a deterministic backward pass
(matmul, no atomics), and equal to torchvision's ``resized_crop(antialias=False)``.

Axes: B images, 3 channels, H x W in, S x S out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.recovery import RollConfig
from distill_core.errors import DataError

TRIES = 10  # of torchvision's RandomResizedCrop before it falls back to a central crop
RATIO = (3 / 4, 4 / 3)  # width / height


@dataclass(frozen=True, slots=True)
class View:
    """One draw for B images; integer boxes, as torchvision draws them."""

    boxes: np.ndarray  # (B, 4) int32: top, left, height, width in pixels of the image
    flips: np.ndarray  # (B,) bool, applied after the crop
    rolls: np.ndarray  # (B, 2) int32: circular shift (dy, dx) in pixels of the view, applied last

    def rows(self, index: np.ndarray) -> View:
        """Return the draws of some of the images."""
        return View(self.boxes[index], self.flips[index], self.rolls[index])


def sample_view(
    rng: np.random.Generator,
    *,
    count: int,
    side: int,
    scale: tuple[float, float] | None,
    flip: bool,
    roll: RollConfig | None = None,
    shared: bool = False,
    ratio: tuple[float, float] = RATIO,
) -> View:
    """Draw a view for `count` images of `side` x `side` pixels.

    Args:
        rng: where the draws come from.
        count: images B.
        side: their side, in pixels.
        scale: bounds of the crop's area as fractions of the image; None keeps the whole image.
        flip: flip horizontally with probability 1/2.
        roll: circular shift; None is none.
        shared: one draw for all images, as the published batch transforms do.
        ratio: bounds of the crop's width over its height.
    """
    draws = 1 if shared else count
    boxes = _whole(draws, side) if scale is None else _boxes(rng, draws, side, scale, ratio)
    flips = rng.random(draws) < 0.5 if flip else np.zeros(draws, bool)
    rolls = _rolls(rng, draws, roll)
    if shared:
        boxes, flips, rolls = (np.repeat(x, count, axis=0) for x in (boxes, flips, rolls))
    return View(boxes, flips, rolls)


def apply_view(images: Tensor, view: View, *, out: int) -> Tensor:
    """Crop, resize, flip and roll; deterministic, differentiable in `images`.

    Args:
        images: (B, 3, H, H) float.
        view: a draw for the same B images.
        out: side S of the result, in pixels.

    Returns:
        (B, 3, S, S), dtype and device of `images`, line by line in memory.

    Raises:
        DataError: `view` is for another number of images.
    """
    if len(view.boxes) != len(images):
        raise DataError(f"view: drawn for {len(view.boxes)} images, applied to {len(images)}.")
    return look_through(images, lens_of(view, side=images.shape[-1], out=out, like=images))


@dataclass(frozen=True, slots=True)
class Lens:
    """A view as the two factors of its map, on a device; n is B, or 1 for all images."""

    down: Tensor  # (n, S, H), from the left
    across: Tensor  # (n, H, S), from the right


def lens_of(view: View, *, side: int, out: int, like: Tensor) -> Lens:
    """Return the lens of a view, with dtype and device of `like`.

    Args:
        view: a draw for B images.
        side: of the images H, in pixels.
        out: side S of the result, in pixels.
        like: any tensor.
    """
    vertical, horizontal = crop_matrices(view, side=side, out=out)
    return Lens(_like(vertical, like), _like(horizontal, like).transpose(-1, -2))


def look_through(images: Tensor, lens: Lens) -> Tensor:
    """Return (B, 3, S, S) of images (B, 3, H, H), as `apply_view` does."""
    count, channels, side = images.shape[:3]
    out = lens.across.shape[-1]
    # The channels stand side by side, so both products are of one matrix per image, not of three.
    lines = images.transpose(1, 2).reshape(count, side, channels * side)
    columns = (lens.down @ lines).reshape(count, out * channels, side)
    return (columns @ lens.across).view(count, out, channels, out).transpose(1, 2)


def crop_matrices(view: View, *, side: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices Ay and Ax of a view, (B, out, side) float64; (1, ...) when shared."""
    boxes, flips, rolls = view.boxes, view.flips, view.rolls
    if len(boxes) > 1 and _same(boxes) and _same(flips) and _same(rolls):
        boxes, flips, rolls = boxes[:1], flips[:1], rolls[:1]
    vertical = _resize_matrices(boxes[:, 0], boxes[:, 2], side=side, out=out)
    horizontal = _resize_matrices(boxes[:, 1], boxes[:, 3], side=side, out=out)
    target = np.arange(out)
    # A rolled row r shows row r - shift; a flipped column c shows column out - 1 - c.
    rows = (target[None] - rolls[:, :1]) % out
    columns = (target[None] - rolls[:, 1:]) % out
    columns = np.where(flips[:, None], out - 1 - columns, columns)
    pick = np.arange(len(boxes))[:, None]
    return vertical[pick, rows], horizontal[pick, columns]


def _like(matrices: np.ndarray, images: Tensor) -> Tensor:
    """Return matrices with dtype and device of `images`, without a wait for what a GPU does."""
    return torch.from_numpy(matrices).to(images.dtype).to(images.device, non_blocking=True)


def _resize_matrices(start: np.ndarray, length: np.ndarray, *, side: int, out: int) -> np.ndarray:
    """Return bilinear weights (B, out, side) that read `length` pixels from `start` on."""
    centres = (np.arange(out)[None] + 0.5) * (length[:, None] / out) - 0.5
    source = np.maximum(centres, 0.0)
    first = np.minimum(source.astype(np.int64), length[:, None] - 1)
    second = np.minimum(first + 1, length[:, None] - 1)
    weight = source - first
    matrices = np.zeros((len(start), out, side))
    image, row = np.arange(len(start))[:, None], np.arange(out)[None]
    np.add.at(matrices, (image, row, start[:, None] + first), 1 - weight)
    np.add.at(matrices, (image, row, start[:, None] + second), weight)
    return matrices


def _boxes(
    rng: np.random.Generator,
    count: int,
    side: int,
    scale: tuple[float, float],
    bounds: tuple[float, float],
) -> np.ndarray:
    """Draw boxes as torchvision's RandomResizedCrop.get_params does, all images at once."""
    area = side * side * rng.uniform(scale[0], scale[1], (count, TRIES))
    ratio = np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), (count, TRIES)))
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    chosen = (np.arange(count), fits.argmax(axis=1))
    # A square image's fallback, a central crop of legal ratio, is the whole image.
    found = fits.any(axis=1)
    height, width = (np.where(found, x[chosen], side) for x in (height, width))
    top = np.floor(rng.random(count) * (side - height + 1))
    left = np.floor(rng.random(count) * (side - width + 1))
    return np.stack([top, left, height, width], axis=1).astype(np.int32)


def _whole(count: int, side: int) -> np.ndarray:
    return np.tile(np.array([0, 0, side, side], np.int32), (count, 1))


def _rolls(rng: np.random.Generator, count: int, roll: RollConfig | None) -> np.ndarray:
    if roll is None or roll.mode == "off":
        return np.zeros((count, 2), np.int32)
    low = -roll.pixels if roll.mode == "symmetric" else 0
    return rng.integers(low, roll.pixels, (count, 2), dtype=np.int32, endpoint=True)


def _same(draws: np.ndarray) -> bool:
    return bool((draws == draws[:1]).all())
