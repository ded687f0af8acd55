"""Batches that go through the teacher together; this affects speed, never results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distill_core.config.recovery import RecoverConfig
from distill_core.sharding import Batch

# Images of 32 x 32 pixels: below them a GPU waits for the host, and a CPU packs weights in vain.
LAUNCH_IMAGES = {"cpu": 100, "cuda": 400}


@dataclass(frozen=True)
class LaunchLimit:
    """Bounds of the number of batches in a launch."""

    groups: int | None = None  # batches at most; None: as many as fill the device
    split: int = 1  # divides that number, for a device that had no room for it

    def size(self, batches: Sequence[Batch], *, side: int, device: str | torch.device) -> int:
        """Return how many of some batches go together at most."""
        fitting = launch_size(batches[0], side=side, device=device)
        return max(1, min(self.groups or fitting, len(batches)) // self.split)


def launch_size(batch: Batch, *, side: int, device: str | torch.device) -> int:
    """Return how many batches of this size fill a launch; one from batches of 8 at 224 px on."""
    pixels = LAUNCH_IMAGES[torch.device(device).type] * 32 * 32
    return max(1, pixels // (len(batch) * side * side))


def launches(
    batches: Sequence[Batch], config: RecoverConfig, *, groups: int
) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the batches that go through the teacher together, launch by launch.

    Neighbours under the same teachers do, at most `groups` of them, whatever their sizes; batches
    with a teacher of their own go alone. Results do not depend on it.
    """
    if config.perturb is not None:
        return tuple((number,) for number in range(len(batches)))
    indices = [_voting_index(batch, config) for batch in batches]
    numbers: list[tuple[int, ...]] = []
    for number, index in enumerate(indices):
        if numbers and len(numbers[-1]) < groups and indices[numbers[-1][0]] == index:
            numbers[-1] = (*numbers[-1], number)
        else:
            numbers.append((number,))
    return tuple(numbers)


def _voting_index(batch: Batch, config: RecoverConfig) -> int | None:
    """Return the index that chooses a batch's teachers; None if all have the same."""
    committee = config.committee
    return None if committee is None or committee.voters is None else batch[0].ipc_index
