"""The loss terms of recover by name, their references in real images, and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat

from distill_core.config.fields import (
    Count,
    CountOrZero,
    Fraction,
    Frozen,
    NonNegativeFloat,
    Pixels,
)

TermName = Literal[  # the functions of recover/terms
    "cross_entropy",
    "bn_statistics",
    "relative_bn_statistics",
    "class_bn_statistics",
    "conv_statistics",
    "class_conv_statistics",
    "patch_statistics",
    "class_patch_statistics",
    "feature_barycentre",
    "feature_originals",
    "start_distance",
    "flatness",
    "density",
    "adversarial",
]

# Terms that compare with the running statistics of batch norm layers.
NEEDS_BATCH_NORMS: frozenset[TermName] = frozenset(
    {"bn_statistics", "relative_bn_statistics", "class_bn_statistics"}
)
Measured = Literal["batch_norms", "channels", "patches", "barycentre", "originals"]
# The reference a term compares with, measured on the real images of each class.
MEASURED: Mapping[TermName, Measured] = {
    "class_bn_statistics": "batch_norms",
    "conv_statistics": "channels",
    "class_conv_statistics": "channels",
    "patch_statistics": "patches",
    "class_patch_statistics": "patches",
    "feature_barycentre": "barycentre",
    "feature_originals": "originals",
}
OF_EVERY_CLASS: frozenset[TermName] = frozenset({"conv_statistics", "patch_statistics"})
SETTINGS: Mapping[str, tuple[TermName, ...]] = {  # terms that need a setting, by field
    "flatness": ("flatness",),
    "convolutions": (
        "conv_statistics",
        "class_conv_statistics",
        "patch_statistics",
        "class_patch_statistics",
    ),
    "barycentre": ("feature_barycentre",),
    "originals": ("feature_originals",),
}


class FlatnessConfig(Frozen):
    """Settings of the term `flatness` (EDC)."""

    decay: Fraction  # of the running average of the images, per step
    temperature: PositiveFloat


class ConvolutionsConfig(Frozen):
    """Settings of the terms that compare statistics of convolutions (G-VBSM, EDC)."""

    first_layer_factor: NonNegativeFloat  # multiplies the gaps of the first convolution
    drop_rate: Fraction = 0.0  # probability that a step leaves out a convolution
    patch: Pixels = 16  # activations per side of a patch


class BarycentreConfig(Frozen):
    """The barycentre of a class: a few points that represent its features (WMDD)."""

    points: Count  # per class; image i of a class is compared with point i modulo their number


class OriginalsConfig(Frozen):
    """The real images whose features the tiles of a mosaic should keep (CIM)."""

    images: Count  # synthetic images per class whose originals are measured; at least ipc
    layer: CountOrZero  # index of the convolution whose input is compared
    grid: Pixels = 1  # cells per side that the input is pooled to
