"""The place of the pixels that a student learns from: the device that trains, or its host.

Axes: N images, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from distill_core.machine_share import gpu_memory_share
from distill_core.progress import Notice, ignore_notice
from distill_core.training.streaming import stated_bytes
from distill_core.training.supervised import Labelled
from distill_core.transforms.pixel_store import HostPixels, Pixels
from distill_core.transforms.upload import upload

VARIABLE = "DISTILL_DEVICE_BYTES"  # limit for the distilled images on a GPU
SHARE = 2  # default limit: this fraction, 1 / SHARE, of the free memory; networks need the rest


@dataclass(frozen=True)
class PlacedImages:
    """The images of a set, for the device that trains."""

    pixels: Pixels  # (N, 3, S, S) uint8
    labels: np.ndarray  # (N,) int64


def place(
    images: Labelled | PlacedImages, device: str | torch.device, notice: Notice = ignore_notice
) -> PlacedImages:
    """Move images to the device that trains; those that do not fit a GPU stay on the host.

    Args:
        images: the images; placed ones are returned.
        device: that trains; on a CPU, the array is used as it is.
        notice: receives a sentence if they stay on the host.

    Raises:
        ConfigError: the variable is not a number of bytes.
    """
    if isinstance(images, PlacedImages):
        return images
    where, size = torch.device(device), images.pixels.nbytes
    if where.type != "cuda" or size <= (limit := _limit(where)):
        return PlacedImages(upload(images.pixels, where), images.labels)
    notice(
        f"{len(images.labels):,} images ({size / 1e9:.1f} GB) stay in the memory of the host, "
        f"because they may take {limit / 1e9:.1f} GB of the GPU. {VARIABLE} changes this limit."
    )
    return PlacedImages(HostPixels(upload(images.pixels, "cpu"), where), images.labels)


def _limit(device: torch.device) -> int:
    """Return the bytes of a GPU that pixels may take: stated, or a part of what is free."""
    stated = stated_bytes(VARIABLE)
    if stated is not None:
        return stated
    free, size = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_allocated(device)  # by this process, e.g. for its teacher
    return max(0, min(free, gpu_memory_share(size) - own)) // SHARE
