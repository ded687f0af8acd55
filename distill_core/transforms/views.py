"""Views: a recorded draw of crop, flip and roll, and its exact, fixed-shape application.

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

from distill_core.config.recovery_settings import RollConfig
from distill_core.data.decoding.crops import RATIO, CropDraws
from distill_core.errors import DataError


@dataclass(frozen=True, slots=True)
class View:
    """One draw for B images; integer boxes, as torchvision draws them."""

    boxes: np.ndarray  # (B, 4) int32: top, left, height, width in pixels of the image
    flips: np.ndarray  # (B,) bool, applied after the crop
    rolls: np.ndarray  # (B, 2) int32: circular shift (dy, dx) in pixels of the view, applied last

    def rows(self, index: np.ndarray) -> View:
        """Return the draws of some of the images."""
        return View(self.boxes[index], self.flips[index], self.rolls[index])

    def repeated(self, count: int) -> View:
        """Return the single draw of this view for each of `count` images."""
        return self.rows(np.zeros(count, np.int64))


def sample_view(
    rng: np.random.Generator,
    *,
    count: int,
    side: int,
    scale: tuple[float, float] | None,
    flip: bool,
    roll: RollConfig | None = None,
    ratio: tuple[float, float] = RATIO,
) -> View:
    """Draw a view for `count` images of `side` x `side` pixels.

    Args:
        rng: source of the draws.
        count: images B.
        side: their side, in pixels.
        scale: bounds of the crop's area as fractions of the image; None keeps the whole image.
        flip: flip horizontally with probability 1/2.
        roll: circular shift; None: no shift.
        ratio: bounds of the crop's width over its height.
    """
    if scale is None:
        boxes = _whole(count, side)
    else:
        boxes = CropDraws.sample(rng, count, scale, ratio).boxes(side, side)
    flips = rng.random(count) < 0.5 if flip else np.zeros(count, bool)
    return View(boxes, flips, _rolls(rng, count, roll))


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
    return resample(images, sampling_grid(view, out=out, like=images))


@dataclass(frozen=True, slots=True)
class SamplingGrid:
    """A view on a device: for each of its lines, a line of the image and the share of the next.

    Rows come first, then columns; n is B, or 1 for all images.
    """

    first: Tensor  # (2, n, S) int64
    share: Tensor  # (2, n, S) of the next line, in [0, 1)
    window: tuple[slice, slice] | None = None  # rows, columns that are read; None: unknown

    def whole(self) -> SamplingGrid:
        """Return the same grid without its window, so that shapes do not depend on the draw."""
        return SamplingGrid(self.first, self.share)


def sampling_grid(view: View, *, out: int, like: Tensor) -> SamplingGrid:
    """Return the grid that samples a view at `out` pixels per side; device and dtype of `like`."""
    first, share = (torch.from_numpy(lines) for lines in source_rows(view, out=out))
    window = None
    if like.device.type == "cpu" and first.shape[1] == 1:  # a GPU prefers equal shapes
        top, left, height, width = view.boxes[0].tolist()
        window = slice(top, top + height), slice(left, left + width)
    # Only two numbers per line are moved to a GPU, not the matrices.
    device = like.device
    return SamplingGrid(
        first.to(device, non_blocking=True),
        share.to(like.dtype).to(device, non_blocking=True),
        window,
    )


def resample(images: Tensor, grid: SamplingGrid) -> Tensor:
    """Return (B, 3, S, S) of images (B, 3, H, H), as `apply_view` does."""
    rows, columns = grid.window or (slice(0, images.shape[-2]), slice(0, images.shape[-1]))
    images = images[:, :, rows, columns]
    down = _matrices(grid.first[0] - rows.start, grid.share[0], images.shape[-2])
    across = _matrices(grid.first[1] - columns.start, grid.share[1], images.shape[-1])
    (count, channels, height, width), out = images.shape, down.shape[1]
    # With channels side by side, both products need one matrix per image instead of three.
    lines = images.transpose(1, 2).reshape(count, height, channels * width)
    resampled = (down @ lines).reshape(count, out * channels, width) @ across.transpose(-1, -2)
    return resampled.view(count, out, channels, out).transpose(1, 2)


def _matrices(first: Tensor, share: Tensor, side: int) -> Tensor:
    """Return matrices (n, S, side) of the lines `first` (n, S) and their `share` of the next."""
    places, shares = first.unsqueeze(-1), share.unsqueeze(-1)
    matrices = share.new_zeros(*first.shape, side)
    # The last line of a crop has no next one: its weight of 1 overwrites the 0 written before.
    matrices.scatter_(-1, (places + 1).clamp_(max=side - 1), shares)
    return matrices.scatter_(-1, places, 1 - shares)


def source_rows(view: View, *, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the line of the image for each line of a view, and the share of the next line.

    Returns:
        Both (2, B, out), rows and columns, B = 1 when shared; int64, and float64 in [0, 1).
    """
    boxes, flips, rolls = view.boxes, view.flips, view.rolls
    if len(boxes) > 1 and _same(boxes) and _same(flips) and _same(rolls):
        boxes, flips, rolls = boxes[:1], flips[:1], rolls[:1]
    # A rolled row r shows row r - shift; a flipped column c shows column out - 1 - c.
    lines = (np.arange(out) - rolls.T[:, :, None]) % out
    lines[1] = np.where(flips[:, None], out - 1 - lines[1], lines[1])
    start, length = boxes.T[:2, :, None].astype(np.int64), boxes.T[2:, :, None]
    source = np.clip((lines + 0.5) * (length / out) - 0.5, 0.0, length - 1)
    first = source.astype(np.int64)
    return start + first, source - first


def _whole(count: int, side: int) -> np.ndarray:
    return np.tile(np.array([0, 0, side, side], np.int32), (count, 1))


def _rolls(rng: np.random.Generator, count: int, roll: RollConfig | None) -> np.ndarray:
    if roll is None or roll.mode == "off":
        return np.zeros((count, 2), np.int32)
    low = -roll.pixels if roll.mode == "symmetric" else 0
    return rng.integers(low, roll.pixels, (count, 2), dtype=np.int32, endpoint=True)


def _same(draws: np.ndarray) -> bool:
    return bool((draws == draws[:1]).all())
