"""Soft labels as features: 8 or 4 bits per channel and one affine map, the head stored once.

A classifier's head is linear, so logits come back from penultimate features by one matmul; what a
label costs then no longer grows with the class count. At T = 20 the rounding loses at most 0.01 %
of a label's information, KL(p || uniform), at 8 bits, and at most 0.5 % at 4;
`tests/core/test_codec.py` holds it to that.

Axes: D features, C classes; leading axes are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill_core.errors import DataError

Scheme = Literal["features", "logits", "topk", "online"]
TINY = np.finfo(np.float32).tiny  # of a level; below it, 1 / level would overflow
WHOLE = np.float32(3 * 2**22)  # float32 this large have no fraction; its lowest byte is 0
CACHED = 2**16  # features at a time


@dataclass(frozen=True, eq=False)
class Affine:
    """What turns codes back into features: ``codes * scale + offset``, see `label_decoding`."""

    scale: np.ndarray  # (D,) float32; 0 where a channel is constant
    offset: np.ndarray  # (D,) float32
    bits: int = 8  # of a code; at 4, a byte holds two


def quantise(features: np.ndarray, *, bits: int = 8) -> tuple[np.ndarray, Affine]:
    """Round every channel to 2^bits levels between its extremes over everything given.

    Args:
        features: (..., D) float32, at least one row.
        bits: 8, or 4: then two channels share a byte.

    Returns:
        (..., ceil(D * bits / 8)) uint8 and the map back. The error is at most half a level.

    Raises:
        DataError: a feature is not finite.
    """
    features = np.asarray(features, np.float32)
    rows = features.reshape(-1, features.shape[-1])
    offset, top = rows.min(axis=0), rows.max(axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        span = top - offset
    if not np.isfinite(span).all():
        bad = int(np.argmin(np.isfinite(span)))
        raise DataError(
            f"features: channel {bad} spans {offset[bad]} to {top[bad]}, finite values expected. "
            f"Check the teacher's weights and its precision."
        )
    scale = span / np.float32(2**bits - 1)
    # A constant channel, or one so narrow that its step underflows, is its offset.
    scale[scale <= TINY] = 0
    steps = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    codes = _rounded(rows, offset, steps).reshape(features.shape)
    return (_packed(codes) if bits == 4 else codes), Affine(scale, offset, bits)


def _rounded(rows: np.ndarray, offset: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the nearest levels of (N, D) features, uint8; blocks of rows stay in the cache.

    No code needs a clip: none is below 0, for no feature is below its offset, and none is above
    the highest level, for rounding is monotonic (no difference exceeds `span`) and three
    roundings carry span * steps at most 4 parts in 2^24 above it, where it still rounds down.
    """
    codes = np.empty(rows.shape, np.uint8)
    block = np.empty((max(1, CACHED // max(1, rows.shape[1])), rows.shape[1]), np.float32)
    for first in range(0, len(rows), len(block)):
        part = rows[first : first + len(block)]
        scaled = np.subtract(part, offset, out=block[: len(part)])
        scaled *= steps
        # The sum's last bits are the nearest whole number, ties to even, as `rint` gives it;
        # casting integers is a third faster.
        scaled += WHOLE
        codes[first : first + len(part)] = scaled.view(np.int32)
    return codes


def _packed(codes: np.ndarray) -> np.ndarray:
    """Return (..., D) codes below 16 two to a byte, the first in its low half."""
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], axis=-1)
    pairs = codes.view("<u2")  # of bytes a and b: a + 256 b, and 4 bits down 16 b
    both: np.ndarray = (pairs | pairs >> 4).astype(np.uint8)
    return both


def choose_scheme(
    scheme: Literal["auto", "features", "logits", "topk", "online"],
    *,
    features: int,
    classes: int,
    bits: int = 8,
) -> Scheme:
    """Resolve ``auto`` to the smaller of features (D codes) and fp16 logits (2 C bytes)."""
    if scheme != "auto":
        return scheme
    return "features" if features * bits <= 16 * classes else "logits"
