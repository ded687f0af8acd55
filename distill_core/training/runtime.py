"""The process that trains: its device, its place among others, and its checkpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distill_core.progress import Notice, Progress, ignore_notice, silent
from distill_core.training.checkpoint import CheckpointPort
from distill_core.training.distributed import DistributedContext
from distill_core.training.intervals import Clock, SaveInterval


@dataclass(frozen=True)
class TrainingRuntime:
    """All that a training depends on without its result depending on it.

    On one kind of device, and with as many threads, the result is the same bytes.

    Args:
        device: where this process computes.
        world: this process among all that share the training.
        checkpoints: where the main process keeps the state; None keeps none.
        progress: called after every step with (steps done, steps in total).
        notice: receives a sentence about each checkpoint that cannot be used.
        interval: between states that are kept inside an epoch; by default there are none. Only the
            training of a teacher keeps such states.
        clock: by which an interval in seconds is measured.
    """

    device: str = "cpu"
    world: DistributedContext = DistributedContext()
    checkpoints: CheckpointPort | None = None
    progress: Progress = silent
    notice: Notice = ignore_notice
    interval: SaveInterval = SaveInterval()
    clock: Clock = time.monotonic
