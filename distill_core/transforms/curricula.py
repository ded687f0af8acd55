"""Curricula by step: the lower bound of the crop area, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from distill_core.config.recovery_settings import CurriculumConfig

Curve = Callable[[float], float]  # progress in [0, 1) towards the milestone -> share of `high`

# 1 is the upper bound (the whole image), 0 the lower one. Easy, large crops come first.
CURVES: Mapping[str, Curve] = {
    "constant": lambda progress: 0.0,
    "step": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1.0 + math.cos(math.pi * progress)) / 2,
    "reverse": lambda progress: (1.0 - math.cos(math.pi * progress)) / 2,
}
AFTER_MILESTONE: Mapping[str, float] = {"reverse": 1.0}  # end value of a curve; 0 for the others


def crop_low(config: CurriculumConfig, step: int, steps: int) -> float:
    """Return the lower bound of the crop area, a fraction of the image.

    Args:
        config: mode, bounds and milestone.
        step: 0 .. steps - 1 (steps itself gives the end of the curriculum).
        steps: all steps of the recovery.

    Source: arXiv:2311.18838 (CDA), section 3; values of VILA-Lab/SRe2L@8d00cba.
    Differs from the paper: the constants of the reverse curriculum are not published; here it is
    the mirrored cosine, and stays at the upper bound after the milestone.
    """
    milestone = config.milestone * steps
    if step < milestone:
        share = CURVES[config.mode](step / milestone)
    else:
        share = AFTER_MILESTONE.get(config.mode, 0.0)
    return config.low + (config.high - config.low) * share


def cosine_lr(lr: float, step: int, steps: int) -> float:
    """Return the learning rate of a step: cosine from `lr` to 0, without warm-up.

    Source: arXiv:2306.13092 (SRe2L), appendix; VILA-Lab/SRe2L@8d00cba.
    """
    return lr * (1.0 + math.cos(math.pi * step / steps)) / 2
