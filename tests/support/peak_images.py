"""Drawn images, for measurements of memory."""

from __future__ import annotations

import numpy as np


def pixels(count: int, side: int) -> np.ndarray:
    """Return drawn images, (count, 3, S, S) uint8."""
    drawn: np.ndarray = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    return drawn
