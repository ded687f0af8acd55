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
from distill_core.data.decoding.crops import CropDraws
from distill_core.data.decoding.processes import span_size
from distill_core.data.files.read_ahead import read_ahead
from distill_core.data.real_images import RealImages
from distill_core.errors import ConfigError
from distill_core.machine_share import gpu_memory_share, memory_share
from distill_core.training.supervised import (
    Batches,
    Blocks,
    Labelled,
    Resident,
    Source,
    augmentation_of,
    augmented,
)
from distill_core.transforms.upload import upload

VARIABLE = (
    "DISTILL_RESIDENT_BYTES"  # limit for training images in memory; larger splits are streamed
)
SHARE = 4  # default limit: this fraction, 1 / SHARE, of the memory that a worker may use
IN_FLIGHT_BYTES = 2**30  # of the batches that are read before their step
BLOCKS_BYTES = 256 * 2**20  # of the images that an evaluation holds at the same time
BLOCKS_AHEAD = 4  # blocks that are read before they are needed, at most
SPARE = 2  # batches that have been read and wait for their step, beside those that are being read


def _nothing() -> None:
    """Release nothing."""


@dataclass(frozen=True)
class StreamedSplit:
    """One split of the real images, with a function that reads some of them."""

    pixels_of: Callable[
        [np.ndarray], np.ndarray
    ]  # (m,) positions to (m, 3, S, S) uint8; called in threads
    labels: np.ndarray  # (n,) int64
    # Likewise, but cut by the decoder from whole images by one draw each; None: not possible
    crops_of: Callable[[np.ndarray, CropDraws], np.ndarray] | None = None
    decoders: int = 1  # processes that decode what several threads read together
    close: Callable[[], None] = _nothing  # releases what reading has started

    def blocks(self, parts: Sequence[np.ndarray], side: int) -> Blocks:
        """Yield the pixels of some images, read ahead within `BLOCKS_BYTES`; see `Split`."""
        size = max((len(part) for part in parts), default=1) * 3 * side**2
        ahead = min(BLOCKS_AHEAD, max(1, BLOCKS_BYTES // size - 1))
        try:
            yield from read_ahead(self.pixels_of, parts, ahead=ahead, readers=ahead)
        finally:
            self.close()


@dataclass(frozen=True)
class Streamed:
    """Training images that are read from storage in every epoch."""

    split: StreamedSplit
    labels: Tensor  # (n,) int64, on the device that trains

    def batches(
        self, parts: Sequence[np.ndarray], run: RunConfig, *, first: int, share: slice
    ) -> Batches:
        """Yield this process's part of each batch; see `supervised.Source`.

        Raises what reading raises, at the step that needed the images.
        """
        device, mine = self.labels.device, [rows[share] for rows in parts]
        size = max([1, *map(len, mine)])  # a process may have none
        readers, ahead = in_flight(size, run.data.side, self.split.decoders)

        def read(number: int) -> np.ndarray:
            rows = mine[number]
            draw = augmentation_of(run, len(parts[number]), step=first + number, share=share)
            if draw.cuts is None:
                return self.split.pixels_of(rows)
            assert self.split.crops_of is not None
            return self.split.crops_of(rows, draw.cuts)

        numbers = range(len(parts))
        with closing(read_ahead(read, numbers, ahead=ahead, readers=readers)) as batches:
            for number, pixels in enumerate(batches):
                whole, placed = len(parts[number]), upload(pixels, device)
                images = augmented(placed, whole, run, step=first + number, share=share)
                yield images, self.labels[upload(mine[number], device)]


def source_of(split: Labelled | StreamedSplit, run: RunConfig, *, device: str) -> Source:
    """Return the training images of a split, resident or streamed.

    Args:
        split: the images.
        run: its training decides what crops are cut from.
        device: that trains.

    Raises:
        ConfigError: crops are cut from whole images, and the split has squares only.
    """
    training = run.squeeze.training
    whole = training is not None and training.crop_from == "image"
    if whole and (isinstance(split, Labelled) or split.crops_of is None):
        raise ConfigError(
            "squeeze.training.crop_from=image needs a split that cuts crops from whole images, "
            "and this one has squares. Give a StreamedSplit with crops_of, or set crop_from=square."
        )
    if isinstance(split, Labelled):
        return Resident.of(split, device=device)
    return Streamed(split, upload(split.labels, device))


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
    return StreamedSplit(images.at, images.labels, decoders=images.decoders, close=images.close)


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
