"""Training images that memory cannot hold: read and decoded ahead of the steps that need them.

Axes: n images in the split, B' in this process's part of a batch, S side in pixels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.training.supervised import Batches, Labelled, Resident, Source, augmented

VARIABLE = "DISTILL_RESIDENT_BYTES"  # pixels that one training may hold; else read ahead
SHARE = 4  # of the memory there is, unless the variable says more: one part in so many
READERS = 2  # batches read at the same time, so that decoders do not wait for a batch's last image
AHEAD = 4  # batches held that no step has seen yet
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class StreamedSplit:
    """One split of the real images, and how some of them are read."""

    pixels_of: Callable[[np.ndarray], np.ndarray]  # (m,) places to (m, 3, S, S) uint8; by threads
    labels: np.ndarray  # (n,) int64


@dataclass(frozen=True)
class Streamed:
    """Training images that are read again in every epoch."""

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
                pixels = torch.from_numpy(ahead.popleft().result()).to(device)
                images = augmented(pixels, len(rows), run, step=first + number, share=share)
                yield images, self.labels[torch.from_numpy(rows[share]).to(device)]
        finally:
            threads.shutdown(cancel_futures=True)


def source_of(split: Labelled | StreamedSplit, *, device: str) -> Source:
    """Return a split as a training sees it, from where its images are."""
    if isinstance(split, Labelled):
        return Resident.of(split, device=device)
    return Streamed(split.pixels_of, torch.from_numpy(split.labels).to(device))


def fits(images: int, side: int, *, device: str, processes: int = 1) -> bool:
    """Return whether a split may be held: what the environment says, else a quarter of the memory.

    Args:
        images: n.
        side: S.
        device: whose memory it has to fit into, beside that of the host.
        processes: of one training, each of which would hold the split; maybe on one host.

    Raises:
        ConfigError: the environment says something that is no number of bytes.
    """
    said = os.environ.get(VARIABLE, "")
    if said and not said.isdecimal():
        raise ConfigError(f"{VARIABLE}: {said!r}, expected bytes. Correct it, or unset it.")
    return images * 3 * side**2 <= (int(said) if said else _memory(device) // SHARE // processes)


def _memory(device: str) -> int:
    """Return the bytes of memory of the host or its container, or of a GPU that has less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, LIMITS):
        if file.is_file() and (limit := file.read_text().strip()).isdecimal():
            found.append(int(limit))
    if torch.device(device).type == "cuda":
        found.append(torch.cuda.mem_get_info(device)[1])
    return min(found)
