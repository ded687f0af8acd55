"""Codes as the product makes them on a device, and what they mean by definition, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.labels.encoding import quantise
from distill_core.storage.label_rows import Affine

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=cuda)]


def quantised(
    features: np.ndarray, *, bits: int = 8, device: str = "cpu"
) -> tuple[np.ndarray, Affine]:
    """Return the codes of features that the product makes on a device."""
    codes, affine = quantise(torch.from_numpy(features).to(device), bits=bits)
    assert codes.device.type == device
    return codes.cpu().numpy(), affine


def dequantise(codes: np.ndarray, affine: Affine) -> np.ndarray:
    """Return the features of uint8 codes as `quantise` makes them, (..., D) float32."""
    if affine.bits == 4:  # two to a byte, the first in its low half
        pairs = np.stack([codes & 15, codes >> 4], axis=-1)
        codes = pairs.reshape(*codes.shape[:-1], -1)[..., : affine.scale.shape[-1]]
    features: np.ndarray = codes.astype(np.float32) * affine.scale + affine.offset
    return features
