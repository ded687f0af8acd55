"""Training images that do not fit into memory, read and decoded ahead of the steps.

Axes: n images in the split, B' in this process's part of a batch, S side in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.schema import RunConfig
from distill_core.data.decoding.processes import span_size
from distill_core.data.real_images import RealImages
from distill_core.errors import ConfigError
from distill_core.machine_share import gpu_memory_share, memory_share
from distill_core.training.read_ahead import read_ahead
from distill_core.training.supervised import (
    BLOCKS_BYTES,
    Batches,
    Labelled,
    Resident,
    Source,
    StreamedSplit,
    augmented,
)
from distill_core.transforms.upload import upload

VARIABLE = (
    "DISTILL_RESIDENT_BYTES"  # limit for training images in memory; larger splits are streamed
)
SHARE = 4  # default limit: this fraction, 1 / SHARE, of the memory that a worker may use
IN_FLIGHT_BYTES = 2**30  # of the batches that are read before their step
SPARE = 2  # batches that have been read and wait for their step, beside those that are being read


@dataclass(frozen=True)
class Streamed:
    """Training images that are read from storage in every epoch."""

    pixels_of: Callable[[np.ndarray], np.ndarray]
    labels: Tensor  # (n,) int64
    side: int  # S
    decoders: int = 1  # processes that decode what several threads read together

    def batches(
        self, parts: Sequence[np.ndarray], run: RunConfig, *, first: int, share: slice
    ) -> Batches:
        """Yield this process's part of each batch; see `supervised.Source`.

        Raises what reading raises, at the step that needed the images.
        """
        device, mine = self.labels.device, [rows[share] for rows in parts]
        size = max((len(rows) for rows in mine), default=1)
        readers, ahead = in_flight(size, self.side, self.decoders)
        with closing(read_ahead(self.pixels_of, mine, ahead=ahead, readers=readers)) as read:
            for number, pixels in enumerate(read):
                whole, placed = len(parts[number]), upload(pixels, device)
                images = augmented(placed, whole, run, step=first + number, share=share)
                yield images, self.labels[upload(mine[number], device)]


def source_of(split: Labelled | StreamedSplit, *, side: int, device: str) -> Source:
    """Return the training images of a split, resident or streamed.

    Args:
        split: the images.
        side: S.
        device: that trains.
    """
    if isinstance(split, Labelled):
        return Resident.of(split, device=device)
    return Streamed(split.pixels_of, upload(split.labels, device), side, split.decoders)


def in_flight(batch: int, side: int, decoders: int) -> tuple[int, int]:
    """Return how many batches are read at the same time, and how many before they are needed.

    A decoder takes `MIN_SPAN` images or more. So many batches are read at the same time that all
    decoders have work, and one more, so that none waits for the last image of a batch.

    Args:
        batch: images of this process's part of a batch.
        side: S.
        decoders: processes that decode.
    """
    busy = -(-decoders // -(-batch // span_size(batch, decoders)))
    most = max(2, IN_FLIGHT_BYTES // (batch * 3 * side**2))
    ahead = min(busy + 1 + SPARE, most)
    return min(busy + 1, ahead), ahead


def evaluation_split(images: RealImages, *, side: int) -> Labelled | StreamedSplit:
    """Return a split that networks are evaluated on: in memory if it is small, else read in blocks.

    Args:
        images: of the split.
        side: S.
    """
    if len(images.labels) * 3 * side**2 <= BLOCKS_BYTES:
        return Labelled(images.resident(), images.labels)
    return StreamedSplit(images.at, images.labels, images.decoders, images.close)


def fits(images: int, side: int, *, device: str) -> bool:
    """Return whether a split fits into the limit of `VARIABLE`, or else a quarter of the memory.

    The memory is this worker's part of that of the host, its container and the GPU.

    Args:
        images: n.
        side: S.
        device: whose memory has to hold the split, as well as that of the host.

    Raises:
        ConfigError: the variable is not a number of bytes.
    """
    stated = stated_bytes(VARIABLE)
    limit = _memory(device) // SHARE if stated is None else stated
    return images * 3 * side**2 <= limit


def stated_bytes(variable: str) -> int | None:
    """Return the bytes that a variable of the environment states; None: it is not set.

    Raises:
        ConfigError: it is not a number of bytes.
    """
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise ConfigError(f"{variable}: {text!r}, expected bytes. Correct it, or unset it.")
    return int(text) if text else None


def _memory(device: str) -> int:
    """Return this worker's bytes of the memory of the host or of the GPU, the smaller."""
    if torch.device(device).type != "cuda":
        return memory_share()
    return min(memory_share(), gpu_memory_share(torch.cuda.mem_get_info(device)[1]))
