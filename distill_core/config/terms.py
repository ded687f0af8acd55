"""The loss terms of recover by name, what they are held against, and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from distill_core.config.fields import Fraction, Frozen, NonNegativeFloat, NonNegativeInt

TermName = Literal[  # the functions of recover/terms
    "cross_entropy",
    "bn_statistics",
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
Measured = Literal["batch_norms", "channels", "patches", "barycentre", "originals"]
# What a term is held against; measured on the real images of each class.
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
SETTINGS: Mapping[str, tuple[TermName, ...]] = {  # what a term needs to know, by field
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
    """What the term `flatness` compares with (EDC)."""

    decay: Fraction  # of the running average of the images, per step
    temperature: PositiveFloat


class ConvolutionsConfig(Frozen):
    """How the statistics of convolutions are compared (G-VBSM, EDC)."""

    first_layer_factor: NonNegativeFloat  # multiplies the gaps of the first convolution
    drop_rate: Fraction = 0.0  # chance of a convolution to be left out of a step
    patch: PositiveInt = 16  # activations per side of a patch


class BarycentreConfig(Frozen):
    """The few points that stand for the features of a class (WMDD)."""

    points: PositiveInt  # of a class; image i of it goes to point i, modulo their number


class OriginalsConfig(Frozen):
    """The real images whose features the tiles of a mosaic are to keep (CIM)."""

    images: PositiveInt  # synthetic images of a class whose originals are described; ipc at most
    layer: NonNegativeInt  # number of the convolution whose input is compared
    grid: PositiveInt = 1  # cells per side to which that input is pooled
