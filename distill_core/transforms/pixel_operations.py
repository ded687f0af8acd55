"""The pixel operations of RandAugment, on whole batches of 8-bit images, exactly as in Pillow.

Every operation takes one argument per image.

Axes: B images, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from distill_core.config.fields import Triple
from distill_core.transforms.upload import constant

GREY = (19595, 38470, 7471)  # weights of red, green and blue, in 1 / 65536


def apply_operation(kind: str, images: Tensor, argument: Tensor, *, fill: Triple) -> Tensor:
    """Apply one operation to images; return uint8 of the same shape.

    Args:
        kind: name in `KINDS`.
        images: (B, 3, S, S) uint8.
        argument: (B,) float32, in the unit of the operation.
        fill: colour in [0, 1] of pixels from outside the image.
    """
    if kind in MOVES:
        return _move(images, MOVES[kind](argument, images.shape[-1]), fill)
    return _to_uint8(CHANGES[kind](images.float(), argument.view(-1, 1, 1, 1)))


def _to_uint8(images: Tensor) -> Tensor:
    """Return floats as Pillow stores them: clipped, then truncated."""
    return images.clamp(0, 255).to(torch.uint8)


def _blend(plain: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Interpolate from a plain version of the images at factor 0 to the images at factor 1."""
    return plain + factor * (images - plain)


def _grey(images: Tensor) -> Tensor:
    levels = images.long()
    weights = constant(GREY, levels).view(1, 3, 1, 1)
    return (((levels * weights).sum(1, keepdim=True) + 0x8000) >> 16).float()


def _colour(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(_grey(images), images, factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = (_grey(images).double().mean((1, 2, 3), keepdim=True) + 0.5).floor()
    return _blend(mean.to(images), images, factor)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, factor)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()  # the border is unchanged
    smooth[..., 1:-1, 1:-1] = (conv2d(images, kernel, groups=3) / 13 + 0.5).floor()
    return _blend(smooth, images, factor)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    step = 2.0 ** (8 - bits)
    return (images / step).floor() * step


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images < threshold, images, 255 - images)


def _solarize_add(images: Tensor, more: Tensor) -> Tensor:
    return torch.where(images < 128, images + more, images)


def _invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    scale = 255.0 / (high - low).clamp(min=1).double()
    stretched = (images.double() * scale - low.double() * scale).floor().to(images)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """Equalise each channel's histogram, in integers as Pillow does."""
    flat = images.long().flatten(2).flatten(0, 1)  # (3 B, pixels)
    # Not `bincount`, for which the host would wait on a GPU.
    counts = flat.new_zeros(len(flat), 256).scatter_add_(1, flat, torch.ones_like(flat))
    last = counts.gather(1, flat.amax(1, keepdim=True))
    step = (flat.shape[1] - last) // 255
    before = counts.cumsum(1) - counts
    table = (before + step // 2) // step.clamp(min=1)
    spread = table.gather(1, flat).clamp(max=255)
    return torch.where(step > 0, spread, flat).view_as(images).to(images)


CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "colour": _colour,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}


def _matrix(*entries: Tensor) -> Tensor:
    """Return (B, 2, 3) from six (B,) entries, row by row."""
    return torch.stack(entries, dim=1).view(-1, 2, 3)


def _rotate(degrees: Tensor, side: int) -> Tensor:
    angle = torch.deg2rad(degrees)
    cos, sin = angle.cos(), angle.sin()
    right, down = side / 2 * (1 - cos + sin), side / 2 * (1 - cos - sin)
    return _matrix(cos, -sin, right, sin, cos, down)


def _shear_x(slope: Tensor, side: int) -> Tensor:
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    return _matrix(one, slope, zero, zero, one, zero)


def _shear_y(slope: Tensor, side: int) -> Tensor:
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    return _matrix(one, zero, zero, slope, one, zero)


def _translate_x(share: Tensor, side: int) -> Tensor:
    zero, one = torch.zeros_like(share), torch.ones_like(share)
    return _matrix(one, zero, share * side, zero, one, zero)


def _translate_y(share: Tensor, side: int) -> Tensor:
    zero, one = torch.zeros_like(share), torch.ones_like(share)
    return _matrix(one, zero, zero, zero, one, share * side)


MOVES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
KINDS = (*CHANGES, *MOVES)  # stored by position: append, never reorder


def _move(images: Tensor, matrices: Tensor, fill: Triple) -> Tensor:
    """Sample each pixel at the position of its matrix, in pixels from the upper left corner."""
    side, theta = images.shape[-1], matrices.clone()
    # From pixels u in [0, side] to coordinates g = 2 u / side - 1 in [-1, 1].
    theta[:, :, 2] = 2 * matrices[:, :, 2] / side + matrices[:, :, :2].sum(2) - 1
    padded = torch.cat([images.float(), torch.ones_like(images[:, :1], dtype=torch.float32)], dim=1)
    grid = affine_grid(theta, list(padded.shape), align_corners=False)
    sampled = grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    outside = constant(fill, sampled).view(1, 3, 1, 1) * 255
    return _to_uint8(sampled[:, :3] + (1 - sampled[:, 3:]) * outside + 0.5)
