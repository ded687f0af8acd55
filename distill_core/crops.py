"""Crops of stored pixels, image by image in memory: the arithmetic of every view of a label.

Small images are cropped all at once by the products of `views`, to fractions of a level. From
`LEVELS_FROM` on a view has whole levels, as loaders of image files show it: a quarter of the
memory, and on a CPU the 8-bit kernels, which read the crop alone. float64 is always exact.

Axes: B images, S side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from distill_core.config.students import LEVELS_FROM
from distill_core.views import View, apply_view


def crop_dtype(side: int, dtype: torch.dtype) -> torch.dtype:
    """Return what crops are kept in: uint8 if they have whole levels, else `dtype`."""
    return torch.uint8 if side >= LEVELS_FROM and dtype != torch.float64 else dtype


def crop_pixels(pixels: Tensor, view: View, *, dtype: torch.dtype) -> Tensor:
    """Crop, resize, flip and roll stored pixels.

    Args:
        pixels: (B, 3, S, S) uint8.
        view: a draw for the same B images.
        dtype: floating, of what is computed from the crops.

    Returns:
        (B, 3, S, S) levels from 0 to 255, of `dtype` or uint8, see `crop_dtype`.
    """
    side = pixels.shape[-1]
    whole = crop_dtype(side, dtype) == torch.uint8
    if whole and pixels.device.type == "cpu":
        return _resized(pixels, view)
    # Line by line, as `apply_view` wants them.
    lines = pixels.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format)
    crops = apply_view(lines.transpose(1, 2), view, out=side)
    return crops.round_().to(torch.uint8) if whole else crops


def _resized(pixels: Tensor, view: View) -> Tensor:
    """Return crops in whole levels; a crop is never larger than its result, so never blurred."""
    side = pixels.shape[-1]
    crops = torch.empty_like(pixels, memory_format=torch.channels_last)
    for image, crop, box, flip, roll in zip(
        pixels, crops, view.boxes.tolist(), view.flips, view.rolls.tolist(), strict=True
    ):
        top, left, height, width = box
        cut = image[None, :, top : top + height, left : left + width]
        cut = cut.contiguous(memory_format=torch.channels_last)
        shown = interpolate(cut, (side, side), mode="bilinear", align_corners=False)[0]
        shown = shown.flip(-1) if flip else shown
        crop.copy_(shown.roll(roll, (1, 2)) if any(roll) else shown)
    return crops
