"""Stored labels of one view, decoded to logits batch by batch on the student's device.

Codes and half-precision numbers are moved as they are stored, and widened on the device.

Axes: N images of all S shards, B rows of a batch, D features, C classes, k kept logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.students import Rest
from distill_core.labels.topk import Top, restore
from distill_core.transforms.upload import upload


@dataclass(frozen=True)
class Head:
    """The linear map from a teacher's features to its logits, on the device that decodes.

    A `weight` in bfloat16 multiplies in bfloat16, three times as fast on a CPU that knows it; at
    T = 20 a label of 8 bits then loses 0.002 % of its information rather than 0.0015 %.
    """

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,), of the dtype of the logits

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits of (B, D) features, (B, C)."""
        return (features.to(self.weight) @ self.weight.T).to(self.bias) + self.bias


@dataclass(frozen=True, eq=False)
class CodedFeatures:
    """Features as codes, which stay on the host until a batch needs them."""

    codes: np.ndarray  # (N, ceil(D * bits / 8)) uint8
    shard: np.ndarray  # (N,) int64, the row of `scale` and `offset` of each image
    scale: Tensor  # (S, D) float32, on the device
    offset: Tensor  # (S, D) float32, on the device
    bits: int
    head: Head

    def __call__(self, rows: np.ndarray) -> Tensor:
        """Return the logits of (B,) rows."""
        codes = take_rows(self.codes, rows, self.scale.device)
        shard = take_rows(self.shard, rows, self.scale.device)
        scale, offset = (part.index_select(0, shard) for part in (self.scale, self.offset))
        return self.head(decode(codes, scale, offset, bits=self.bits))


@dataclass(frozen=True, eq=False)
class HalfLogits:
    """Logits in half precision."""

    values: np.ndarray  # (N, C) float16
    device: torch.device

    def __call__(self, rows: np.ndarray) -> Tensor:
        """Return the logits of (B,) rows, float32."""
        return take_rows(self.values, rows, self.device).float()


@dataclass(frozen=True, eq=False)
class KeptLogits:
    """The largest logits; those left out are filled in batch by batch."""

    values: np.ndarray  # (N, k) float16
    ids: np.ndarray  # (N, k) uint16
    others: np.ndarray  # (N,) float16, the mean of the other logits
    classes: int
    rest: Rest
    device: torch.device

    def __call__(self, rows: np.ndarray) -> Tensor:
        """Return the logits of (B,) rows, float32."""
        values, ids, others = (
            take_rows(array, rows, self.device) for array in (self.values, self.ids, self.others)
        )
        top = Top(values.float(), ids.long(), others.float())
        return restore(top, classes=self.classes, rest=self.rest)


def decode(codes: Tensor, scale: Tensor, offset: Tensor, *, bits: int) -> Tensor:
    """Return the features of codes as `quantise` makes them, (..., D) float32, on their device.

    Args:
        codes: (..., ceil(D * bits / 8)) uint8; of two codes in a byte the first is the low half.
        scale: (D,) or (..., D) float32.
        offset: like `scale`.
        bits: of a code, 8 or 4.
    """
    if bits == 4:
        pairs = torch.stack([codes & 15, codes >> 4], dim=-1)
        codes = pairs.flatten(-2)[..., : scale.shape[-1]]
    return (codes * scale).add_(offset)


def take_rows(array: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Return some rows of an array on a device, in the array's own type."""
    return upload(array[rows], device)
