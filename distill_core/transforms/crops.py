"""Crops of stored pixels, channels last in memory: the first step of every label view.

Small images are cropped in floating point, all at once. From a side of `LEVELS_FROM` pixels on,
crops are rounded to uint8, as loaders of image files do: this takes a quarter of the memory, and a
CPU can use its 8-bit kernels. float64 is always exact.

Axes: B images, S side in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from distill_core.config.students import LEVELS_FROM
from distill_core.transforms.views import View, apply_view, source_rows


def crop_dtype(side: int, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of crops: uint8 from `LEVELS_FROM` pixels on, else `dtype`."""
    return torch.uint8 if side >= LEVELS_FROM and dtype != torch.float64 else dtype


def crop_pixels(pixels: Tensor, view: View, *, dtype: torch.dtype) -> Tensor:
    """Crop, resize, flip and roll stored pixels.

    Args:
        pixels: (B, 3, S, S) uint8.
        view: a draw for the same B images.
        dtype: floating dtype of later computations.

    Returns:
        (B, 3, S, S) levels from 0 to 255, of `dtype` or uint8, see `crop_dtype`.
    """
    side = pixels.shape[-1]
    whole = crop_dtype(side, dtype) == torch.uint8
    if whole and pixels.device.type == "cpu":
        return _resized(pixels, view)
    if pixels.device.type == "cpu":
        return _read(pixels, view, dtype)
    # Line by line in memory, which `apply_view` needs.
    lines = pixels.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format)
    crops = apply_view(lines.transpose(1, 2), view, out=side)
    return crops.round_().to(torch.uint8) if whole else crops


def _read(pixels: Tensor, view: View, dtype: torch.dtype) -> Tensor:
    """Return the result of `apply_view` on floats, as weighted pairs of lines, without matmul."""
    count, _, side, _ = pixels.shape
    (rows, columns), (below, right) = source_rows(view, out=side)
    lines = pixels.permute(0, 3, 1, 2).to(dtype, memory_format=torch.contiguous_format)
    across = _weighted(lines.view(count, side, 3 * side), columns, right)
    # Columns were contiguous; now rows are, with the channels of a pixel side by side.
    lines = across.view(count, side, 3, side).permute(0, 3, 1, 2).contiguous()
    down = _weighted(lines.view(count, side, 3 * side), rows, below)
    return down.view(count, side, side, 3).permute(0, 3, 1, 2)


def _weighted(lines: Tensor, first: np.ndarray, share: np.ndarray) -> Tensor:
    """Return (B * S, L) weighted sums of neighbouring lines, from the (B, S, L) lines of images."""
    count, side, length = lines.shape
    places = np.stack([first, np.minimum(first + 1, side - 1)], axis=-1)
    places = places + side * np.arange(count)[:, None, None]
    shares = torch.from_numpy(np.stack([1 - share, share], axis=-1)).expand(places.shape)
    mixed: Tensor = torch.embedding_bag(
        lines.view(count * side, length),
        torch.from_numpy(places).flatten(),
        torch.arange(0, places.size, 2),
        per_sample_weights=shares.to(lines.dtype).flatten(),
    )[0]
    return mixed


def _resized(pixels: Tensor, view: View) -> Tensor:
    """Return uint8 crops; they are never downsampled, so antialiasing is not needed."""
    side = pixels.shape[-1]
    crops = torch.empty_like(pixels, memory_format=torch.channels_last)
    for image, crop, box, flip, roll in zip(
        pixels, crops, view.boxes.tolist(), view.flips, view.rolls.tolist(), strict=True
    ):
        top, left, height, width = box
        cut = image[None, :, top : top + height, left : left + width]
        cut = cut.contiguous(memory_format=torch.channels_last)
        view_pixels = interpolate(cut, (side, side), mode="bilinear", align_corners=False)[0]
        view_pixels = view_pixels.flip(-1) if flip else view_pixels
        crop.copy_(view_pixels.roll(roll, (1, 2)) if any(roll) else view_pixels)
    return crops
