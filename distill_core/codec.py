"""Soft labels as features: 8 bits per channel and one affine map, the head stored once.

A classifier's head is linear, so logits come back from penultimate features by one matmul; what a
label costs then no longer grows with the class count. At T = 20 the rounding loses at most 0.01 %
of a label's information, KL(p || uniform); `tests/core/test_codec.py` holds it to that.

Axes: D features, C classes; leading axes are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill_core.errors import DataError

Scheme = Literal["features", "logits", "online"]
LEVELS = 255  # steps between the smallest and the largest value of a channel
TINY = np.finfo(np.float32).tiny  # of a level; below it, 1 / level would overflow


@dataclass(frozen=True, eq=False)
class Affine:
    """What turns codes back into features: ``codes * scale + offset``, per channel."""

    scale: np.ndarray  # (D,) float32; 0 where a channel is constant
    offset: np.ndarray  # (D,) float32


def quantise(features: np.ndarray) -> tuple[np.ndarray, Affine]:
    """Round every channel to 256 levels between its extremes over everything given.

    Args:
        features: (..., D) float32, at least one row.

    Returns:
        (..., D) uint8 and the map back. The error is at most half a level.

    Raises:
        DataError: a feature is not finite.
    """
    features = np.asarray(features, np.float32)
    rows = tuple(range(features.ndim - 1))
    offset, top = features.min(axis=rows), features.max(axis=rows)
    with np.errstate(invalid="ignore", over="ignore"):
        span = top - offset
    if not np.isfinite(span).all():
        bad = int(np.argmin(np.isfinite(span)))
        raise DataError(
            f"features: channel {bad} spans {offset[bad]} to {top[bad]}, finite values expected. "
            f"Check the teacher's weights and its precision."
        )
    scale = span / np.float32(LEVELS)
    # A constant channel, or one so narrow that its step underflows, is its offset.
    steps = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > TINY)
    scaled = (features - offset) * steps
    codes = np.clip(np.rint(scaled, out=scaled), 0, LEVELS, out=scaled).astype(np.uint8)
    return codes, Affine(np.where(scale > TINY, scale, np.float32(0)), offset)


def dequantise(codes: np.ndarray, affine: Affine) -> np.ndarray:
    """Return the features of (..., D) uint8 codes, float32."""
    features = codes.astype(np.float32)
    features *= affine.scale
    features += affine.offset
    return features


def choose_scheme(
    scheme: Literal["auto", "features", "logits", "online"], *, features: int, classes: int
) -> Scheme:
    """Resolve ``auto`` to the smaller of uint8 features (D bytes) and fp16 logits (2 C bytes)."""
    if scheme != "auto":
        return scheme
    return "features" if features <= 2 * classes else "logits"
