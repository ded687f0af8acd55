"""Training images that do not fit into memory, read and decoded ahead of the steps.

Axes: n images in the split, B' in this process's part of a batch, S side in pixels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.machine_share import gpu_memory_share, memory_share
from distill_core.training.supervised import Batches, Labelled, Resident, Source, augmented
from distill_core.transforms.upload import upload

VARIABLE = (
    "DISTILL_RESIDENT_BYTES"  # limit for training images in memory; larger splits are streamed
)
SHARE = 4  # default limit: this fraction, 1 / SHARE, of the memory that a worker may use
READERS = (
    2  # batches read at the same time, so that decoders need not wait for a batch's last image
)
AHEAD = 4  # batches held in memory before their step


@dataclass(frozen=True)
class StreamedSplit:
    """One split of the real images, with a function that reads some of them."""

    pixels_of: Callable[
        [np.ndarray], np.ndarray
    ]  # (m,) positions to (m, 3, S, S) uint8; called in threads
    labels: np.ndarray  # (n,) int64


@dataclass(frozen=True)
class Streamed:
    """Training images that are read from storage in every epoch."""

    pixels_of: Callable[[np.ndarray], np.ndarray]
    labels: Tensor  # (n,) int64

    def batches(
        self, parts: Sequence[np.ndarray], run: RunConfig, *, first: int, share: slice
    ) -> Batches:
        """Yield this process's part of each batch; see `supervised.Source`.

        Raises what reading raises, at the step that needed the images.
        """
        device, ahead = self.labels.device, deque[Future[np.ndarray]]()
        threads = ThreadPoolExecutor(READERS)
        try:
            for number in range(-AHEAD, len(parts)):
                if number + AHEAD < len(parts):
                    ahead.append(threads.submit(self.pixels_of, parts[number + AHEAD][share]))
                if number < 0:
                    continue
                rows = parts[number]
                pixels = upload(ahead.popleft().result(), device)
                images = augmented(pixels, len(rows), run, step=first + number, share=share)
                yield images, self.labels[upload(rows[share], device)]
        finally:
            threads.shutdown(cancel_futures=True)


def source_of(split: Labelled | StreamedSplit, *, device: str) -> Source:
    """Return the training images of a split, resident or streamed."""
    if isinstance(split, Labelled):
        return Resident.of(split, device=device)
    return Streamed(split.pixels_of, upload(split.labels, device))


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
