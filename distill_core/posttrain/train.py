"""Post-train: a student on the distilled set, judged on real images as it learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distill_core.labels.sources import LabelSource
from distill_core.posttrain.epoch_views import is_hard
from distill_core.posttrain.prefetch import Asked, labels_in_turn
from distill_core.posttrain.student import Student, StudentTask
from distill_core.progress import Progress, silent
from distill_core.training.checkpoint import CheckpointPort
from distill_core.training.distributed import DistributedContext
from distill_core.training.supervised import Labelled

CHECKPOINTS = 20  # of one training; a crash costs a twentieth of it at most


@dataclass(frozen=True)
class TrainedStudent:
    """A student at the end of its training."""

    result: dict[str, Any]  # accuracies last, EMA, best, curve, on what judged it; JSON-able
    last: nn.Module
    ema: nn.Module  # averaged weights, with the buffers of `last`


def train_student(
    task: StudentTask,
    images: Labelled,
    labels: LabelSource,
    test: Labelled,
    *,
    views: LabelSource | None = None,
    device: str | torch.device,
    start: nn.Module | None = None,
    checkpoints: CheckpointPort | None = None,
    progress: Progress = silent,
    world: DistributedContext = DistributedContext(),
) -> TrainedStudent:
    """Train and judge one student; an interrupted training goes on from its last checkpoint.

    Every draw is named by (seed, epoch), so resuming ends with the bytes of an undisturbed
    training on one device kind.

    Args:
        task: what to train.
        images: the small set, uint8.
        labels: what the teacher says of it; views only, for hard labels.
        test: the real images to judge on: the test split, or a part of it.
        views: views without labels, for epochs that learn from the classes alone.
        device: where to compute.
        start: the network whose weights training goes on from; it is trained itself. None: from
            scratch.
        checkpoints: where the state is kept; None keeps none.
        progress: told (epochs done, epochs in total).
        world: this process among all of the training.

    Raises:
        ConfigError: a batch is too small for so many processes.
        DivergedError: the loss stopped being finite.

    Source: arXiv:2306.13092 (SRe2L) section 3.3; EMA evaluation and zeta of arXiv:2404.13733 (EDC).
    Differs from the papers: last and EMA accuracy are reported beside the best on the test split.
    """
    student = Student(task, images, test, torch.device(device), world, start)
    is_main = student.resume(checkpoints)
    settings = task.run.posttrain
    gpus = [device] if torch.device(device).type == "cuda" else []
    with (
        torch.random.fork_rng(devices=gpus),  # the seeds of an epoch are for dropout alone
        closing(labels_in_turn(_asked(student, is_main, labels, views))) as in_turn,
    ):
        for epoch in range(is_main, settings.epochs):
            loss = student.epoch(epoch, next(in_turn))
            done = epoch + 1
            if done % settings.evaluate_every == 0 or done == settings.epochs:
                student.evaluate(done, loss)
            if checkpoints is not None and world.is_main and _is_kept(done, settings.epochs):
                checkpoints.save(done, student.state())
            progress(done, settings.epochs)
    return TrainedStudent(student.result(), student.model, student.ema.model)


def _asked(
    student: Student, is_main: int, labels: LabelSource, views: LabelSource | None
) -> Iterator[Asked]:
    """Yield where the labels of each epoch come from, and which views it reads."""
    for epoch in range(is_main, student.settings.epochs):
        source = views if views is not None and is_hard(student.settings, epoch) else labels
        yield source, student.views(epoch, len(source.shards))


def _is_kept(done: int, epochs: int) -> bool:
    """Return whether the state after so many epochs is kept."""
    return done % -(-epochs // CHECKPOINTS) == 0
