"""Formats by their definition, in NumPy: what the code for batches and devices is compared with."""

from __future__ import annotations

import numpy as np

from distill_core.codec import Affine


def dequantise(codes: np.ndarray, affine: Affine) -> np.ndarray:
    """Return the features of uint8 codes as `codec.quantise` makes them, (..., D) float32."""
    if affine.bits == 4:  # two to a byte, the first in its low half
        pairs = np.stack([codes & 15, codes >> 4], axis=-1)
        codes = pairs.reshape(*codes.shape[:-1], -1)[..., : affine.scale.shape[-1]]
    features: np.ndarray = codes.astype(np.float32) * affine.scale + affine.offset
    return features
