"""RandAugment: sample some operations per image, then apply them to 8-bit pixels, exactly.

The draw says all, in the units of each operation: replaying it needs neither the config nor a
generator. Every operation takes a whole batch, each image with an argument of its own, and does
what Pillow does.

Axes: B images, K operations in a row, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from distill_core.config.fields import Triple
from distill_core.config.students import RandAugmentConfig

TOP = 10.0  # the highest level
GREY = (19595, 38470, 7471)  # of red, green and blue, in 1 / 65536


@dataclass(frozen=True, slots=True)
class Operations:
    """What is done to each image, in order."""

    kinds: np.ndarray  # (B, K) uint8: 0 nothing, else place in `KINDS` plus 1
    arguments: np.ndarray  # (B, K) float32; degrees, a share of the side, a factor, a grey value

    def rows(self, index: np.ndarray) -> Operations:
        """Return what is done to some of the images."""
        return Operations(self.kinds[index], self.arguments[index])


def sample_operations(
    rng: np.random.Generator, config: RandAugmentConfig, *, count: int
) -> Operations:
    """Draw kinds, levels around the magnitude, signs, and whether they happen at all."""
    shape, space = (count, config.operations), SPACES[config.space]
    drawn = rng.integers(len(space), size=shape, dtype=np.uint8)
    levels = rng.normal(config.magnitude, config.spread, shape).clip(0, TOP)
    signs = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    happens = rng.random(shape) < config.chance
    kinds, arguments = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    for place, (name, argument) in enumerate(space.items()):
        chosen = happens & (drawn == place)
        kinds[chosen] = KINDS.index(name) + 1 if name in KINDS else 0
        arguments[chosen] = argument(levels[chosen] / TOP, signs[chosen])
    return Operations(kinds, arguments)


def apply_operations(pixels: Tensor, drawn: Operations, *, fill: Triple) -> Tensor:
    """Change (B, 3, S, S) uint8 pixels as drawn; return uint8 of the same shape.

    Args:
        pixels: stay as they are.
        drawn: for the same B images.
        fill: colour in [0, 1] of what moves in from outside.

    Source: arXiv:1909.13719, with the operations and ranges of timm's `rand_augment_transform`,
    which arXiv:2412.09959 (DELT) uses, or of torchvision's `RandAugment`, which arXiv:2404.13733
    (EDC) does. Differs from both: moves are bilinear, never bicubic (timm) or nearest
    (torchvision), and what moves in has the mean colour.
    """
    images = pixels.clone()
    for place in range(drawn.kinds.shape[1]):
        for kind in np.unique(drawn.kinds[:, place]).tolist():
            if kind:
                rows = np.flatnonzero(drawn.kinds[:, place] == kind)
                index = torch.from_numpy(rows).to(pixels.device)
                argument = torch.from_numpy(drawn.arguments[rows, place]).to(pixels.device)
                images[index] = _apply(KINDS[kind - 1], images[index], argument, fill)
    return images


def _apply(name: str, images: Tensor, argument: Tensor, fill: Triple) -> Tensor:
    if name in MOVES:
        return _move(images, MOVES[name](argument, images.shape[-1]), fill)
    return _whole(CHANGES[name](images.float(), argument.view(-1, 1, 1, 1)))


def _whole(images: Tensor) -> Tensor:
    """Return floats as Pillow stores them: clipped, then cut off."""
    return images.clamp(0, 255).to(torch.uint8)


def _blend(plain: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Return images, further from a plain version of themselves the larger the factor."""
    return plain + factor * (images - plain)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(GREY, device=images.device, dtype=torch.int64).view(1, 3, 1, 1)
    return (((images.long() * weights).sum(1, keepdim=True) + 0x8000) >> 16).float()


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
    smooth = images.clone()  # the border stays
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
    """Spread each channel's histogram evenly, in integers as Pillow does."""
    flat = images.long().flatten(2).flatten(0, 1)  # (3 B, pixels)
    start = 256 * torch.arange(len(flat), device=flat.device)[:, None]
    counts = torch.bincount((flat + start).flatten(), minlength=256 * len(flat)).view(-1, 256)
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
KINDS = (*CHANGES, *MOVES)  # in this order they are stored: append, never reorder

Argument = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of levels in [0, 1] and of signs


def _nothing(level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    return 0 * level


def _up_to(most: float) -> Argument:
    """Return what grows with the level to either side."""
    return lambda level, sign: sign * level * most


TIMM: Mapping[str, Argument] = {
    "autocontrast": _nothing,
    "equalize": _nothing,
    "invert": _nothing,
    "posterize": lambda level, sign: np.floor(4 * level),
    "solarize": lambda level, sign: np.floor(256 * level),
    "solarize_add": lambda level, sign: np.floor(110 * level),
    **dict.fromkeys(
        ("colour", "contrast", "brightness", "sharpness"), lambda level, sign: 1.8 * level + 0.1
    ),
    "rotate": _up_to(30),
    **dict.fromkeys(("shear_x", "shear_y"), _up_to(0.3)),
    **dict.fromkeys(("translate_x", "translate_y"), _up_to(0.45)),
}
TORCHVISION: Mapping[str, Argument] = {
    "identity": _nothing,
    **dict.fromkeys(("shear_x", "shear_y"), _up_to(0.3)),
    **dict.fromkeys(("translate_x", "translate_y"), _up_to(150 / 331)),
    "rotate": _up_to(30),
    **dict.fromkeys(
        ("brightness", "colour", "contrast", "sharpness"),
        lambda level, sign: 1 + sign * 0.9 * level,
    ),
    "posterize": lambda level, sign: 8 - np.rint(4 * level),
    "solarize": lambda level, sign: 255 * (1 - level),
    "autocontrast": _nothing,
    "equalize": _nothing,
}
SPACES: Mapping[str, Mapping[str, Argument]] = {"timm": TIMM, "torchvision": TORCHVISION}


def _move(images: Tensor, matrices: Tensor, fill: Triple) -> Tensor:
    """Read each pixel from where its matrix says, in pixels from the upper left corner."""
    side, theta = images.shape[-1], matrices.clone()
    # From pixels u in [0, side] to coordinates g = 2 u / side - 1 in [-1, 1].
    theta[:, :, 2] = 2 * matrices[:, :, 2] / side + matrices[:, :, :2].sum(2) - 1
    padded = torch.cat([images.float(), torch.ones_like(images[:, :1], dtype=torch.float32)], dim=1)
    grid = affine_grid(theta, list(padded.shape), align_corners=False)
    seen = grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    outside = torch.tensor(fill, device=images.device).view(1, 3, 1, 1) * 255
    return _whole(seen[:, :3] + (1 - seen[:, 3:]) * outside + 0.5)
