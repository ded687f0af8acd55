"""Settings of a recovery that form a group: its views, its mosaics, its segments."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, field_validator

from distill_core.config.fields import Count, Fraction, Frozen, Pixels, PixelsOrZero


class CurriculumConfig(Frozen):
    """Bounds of the crop area by step (CDA); large, easy crops come first unless reversed."""

    mode: Literal["constant", "step", "linear", "cosine", "reverse"]
    low: Fraction
    high: Fraction = 1.0
    milestone: Fraction = 1.0  # fraction of the steps after which the lower bound stays at `low`


class RollConfig(Frozen):
    """Circular shift of the view."""

    mode: Literal["one_sided", "symmetric", "off"]
    pixels: PixelsOrZero = 0  # one_sided: 0..pixels; symmetric: -pixels..pixels (both inclusive)

    @field_validator("mode", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        """Accept a bare `off`, which YAML parses as false."""
        return "off" if value is False else value


class MosaicConfig(Frozen):
    """Mosaics of scored real crops (RDED)."""

    images: Count = 300  # candidate real images per class
    crops: Count = 5  # crops per image; the one most like its class is kept
    factor: Pixels  # tiles per side of a mosaic
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)  # area of a crop
    # easiest: crops most like their class first; median: crops of median probability first
    order: Literal["easiest", "median"] = "easiest"


class SegmentConfig(Frozen):
    """A part of a recovery with its own resolution and a fresh optimiser (FADRM)."""

    steps: Count
    side: Pixels | None = None  # in pixels; None: that of the data


class PerturbConfig(Frozen):
    """Perturbation of the teacher's weights by gradient ascent, for every batch (DWA)."""

    steps: Count
    radius: PositiveFloat  # L2 length of the whole move
