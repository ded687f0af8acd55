"""Stored pixels that are read batch by batch, on the device or on its host.

Axes: N images, B rows of them, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.transforms.upload import upload


@dataclass(frozen=True, eq=False)
class HostPixels:
    """Pixels that do not fit the device: they stay on the host and are uploaded row by row.

    The rows of a batch are copied into page-locked memory, out of which a GPU takes them while the
    host goes on. torch uses such memory again once the copy is done.
    """

    array: Tensor  # (N, 3, S, S) uint8, on the host
    device: torch.device  # that computes

    @property
    def shape(self) -> torch.Size:
        """Return (N, 3, S, S)."""
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> HostPixels:
        """Return adjacent images; nothing is copied."""
        return HostPixels(self.array[rows], self.device)

    def take(self, rows: np.ndarray) -> Tensor:
        """Return (B, 3, S, S) uint8 on the device."""
        size = (len(rows), *self.shape[1:])
        staging = torch.empty(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        torch.index_select(self.array, 0, upload(rows, "cpu"), out=staging)
        return staging.to(self.device, non_blocking=True)


Pixels = Tensor | HostPixels  # (N, 3, S, S) uint8


def take(pixels: Pixels, rows: np.ndarray) -> Tensor:
    """Return some images on the device that computes, (B, 3, S, S) uint8.

    Args:
        pixels: (N, 3, S, S) uint8.
        rows: (B,) which images.
    """
    rows = rows.astype(np.int64)
    if isinstance(pixels, HostPixels):
        return pixels.take(rows)
    return pixels.index_select(0, upload(rows, pixels.device))
