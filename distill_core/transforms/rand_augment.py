"""RandAugment: sample some operations per image, then apply them to 8-bit pixels.

The draw is complete, in the units of each operation: replaying it needs neither the config nor a
generator.

Axes: B images, K operations in sequence, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from distill_core.config.fields import Triple
from distill_core.config.students import RandAugmentConfig
from distill_core.transforms.pixel_operations import KINDS, apply_operation
from distill_core.transforms.upload import upload

TOP = 10.0  # the highest level


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations drawn for each image, in order."""

    kinds: np.ndarray  # (B, K) uint8: 0 is none, else position in `KINDS` plus 1
    arguments: np.ndarray  # (B, K) float32; degrees, a share of the side, a factor, a grey value

    def rows(self, index: np.ndarray) -> Operations:
        """Return the operations of some of the images."""
        return Operations(self.kinds[index], self.arguments[index])


def sample_operations(
    rng: np.random.Generator, config: RandAugmentConfig, *, count: int
) -> Operations:
    """Draw kinds, levels around the magnitude, signs, and whether each is applied."""
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
    """Apply the drawn operations to (B, 3, S, S) uint8 pixels; return a new uint8 tensor.

    Args:
        pixels: not changed.
        drawn: for the same B images.
        fill: colour in [0, 1] of pixels from outside the image.

    Source: arXiv:1909.13719, with the operations and ranges of timm's `rand_augment_transform`,
    which arXiv:2411.19946 (DELT) uses, or of torchvision's `RandAugment`, which arXiv:2404.13733
    (EDC) does. Differs from both: moves are bilinear, not bicubic (timm) or nearest
    (torchvision), and pixels from outside the image have the mean colour.
    """
    images = pixels.clone()
    for place in range(drawn.kinds.shape[1]):
        for kind in np.unique(drawn.kinds[:, place]).tolist():
            if kind:
                rows = np.flatnonzero(drawn.kinds[:, place] == kind)
                index = upload(rows, pixels.device)
                argument = upload(drawn.arguments[rows, place], pixels.device)
                images[index] = apply_operation(KINDS[kind - 1], images[index], argument, fill=fill)
    return images


Argument = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of levels in [0, 1] and of signs


def _nothing(level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    return 0 * level


def _up_to(most: float) -> Argument:
    """Return an argument that grows with the level, in either direction."""
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
