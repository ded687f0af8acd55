"""Post-train: train a student on the distilled set, and measure it on real images as it learns.

Axes: N images of all shards, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.labels.reading import ViewReader, memory_reader
from distill_core.labels.sources import LabelSource, OnlineLabels, StoredLabels, ViewsOnly
from distill_core.models.ensemble import Ensemble
from distill_core.models.teacher import FrozenTeacher
from distill_core.posttrain.epochs import EpochLabels, is_hard, labels_by_epoch
from distill_core.posttrain.images import TrainingImages
from distill_core.posttrain.placing import PlacedImages, place
from distill_core.posttrain.student import Student, StudentTask
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import LabelRows
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled
from distill_core.transforms.pixel_store import Pixels

CHECKPOINTS = 20  # of one training; a crash costs a twentieth of it at most


@dataclass(frozen=True)
class TrainedStudent:
    """A student at the end of its training."""

    result: dict[str, Any]  # accuracies last, EMA, best, and the curve; JSON-able
    last: nn.Module
    ema: nn.Module  # averaged weights, with the buffers of `last`


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of some image shards: the teacher, and stored labels where there are any."""

    teacher: Callable[[], FrozenTeacher | Ensemble]  # loads it; called only if labels are soft
    readers: Sequence[ViewReader] = ()  # by image shard; none if labels are computed online

    @classmethod
    def in_memory(
        cls, teacher: FrozenTeacher | Ensemble, shards: Sequence[LabelRows]
    ) -> SoftLabels:
        """Return the soft labels of label shards that are in memory, one per image shard."""
        return cls(lambda: teacher, [memory_reader(rows) for rows in shards])


def train_on_shards(
    task: StudentTask,
    images: Sequence[ImageRows] | TrainingImages,
    soft: SoftLabels,
    test: Labelled,
    *,
    start: nn.Module | None = None,
    runtime: TrainingRuntime = TrainingRuntime(),
) -> TrainedStudent:
    """Train one student on image shards, with the labels that its task needs.

    Args:
        task: run, architecture, seed and set; the set and the config decide which labels.
        images: image shards of the set, in plan order. The pixels of several are copied, unless
            they are in one array already.
        soft: their soft labels.
        test: the real images it is evaluated on.
        start: network that training goes on from, see `train_student`.
        runtime: device, processes and checkpoints.

    Raises:
        ConfigError: a batch is too small for so many processes, or stored labels are missing.
        DataError: there is no image, or the images differ in size.
        DivergedError: the loss stopped being finite.
    """
    if not isinstance(images, TrainingImages):
        images = TrainingImages.of(images)
    placed = place(Labelled(images.pixels, images.labels), runtime.device, runtime.notice)
    return train_student(
        task,
        placed,
        _label_source(task, images, placed.pixels, soft),
        test,
        views=_views_only(task.run, images),
        start=start,
        runtime=runtime,
    )


def _label_source(
    task: StudentTask, images: TrainingImages, pixels: Pixels, soft: SoftLabels
) -> LabelSource:
    """Return the labels of a set: none for hard labels, computed online, or stored.

    Args:
        task: run and set.
        images: of the set.
        pixels: of the images, for the device that computes.
        soft: their soft labels.
    """
    run, shards = task.run, images.shards
    if task.images_of == "hard_labels":
        return _views_only(run, images)
    teacher = soft.teacher()
    if run.relabel.scheme == "online":
        parts = [(names, pixels[rows]) for names, rows in zip(shards, images.slices(), strict=True)]
        return OnlineLabels(parts, teacher, run.relabel, run.seed)
    if len(soft.readers) != len(shards):
        raise ConfigError(
            f"posttrain: stored labels of {len(soft.readers)} image shards, {len(shards)} "
            "expected. Give one reader per shard, or set relabel.scheme to online."
        )
    return StoredLabels(
        soft.readers,
        [len(names) for names in shards],
        (teacher.head.weight, teacher.head.bias),
        pixels.device,
        rest=run.posttrain.rest,
        half=run.precision == "bfloat16",
    )


def _views_only(run: RunConfig, images: TrainingImages) -> ViewsOnly:
    return ViewsOnly(images.shards, run.relabel, run.seed, run.data.side)


def train_student(
    task: StudentTask,
    images: Labelled | PlacedImages,
    labels: LabelSource,
    test: Labelled,
    *,
    views: LabelSource | None = None,
    start: nn.Module | None = None,
    runtime: TrainingRuntime = TrainingRuntime(),
) -> TrainedStudent:
    """Train and evaluate one student; an interrupted training goes on from its last checkpoint.

    Every draw is named by (seed, epoch), so resuming ends with the bytes of an undisturbed
    training on one device kind.

    Args:
        task: run, architecture, seed and set.
        images: the small set, (N, 3, S, S) uint8; placed for the device, or still to be placed.
        labels: its soft labels; views only, for hard labels.
        test: the real images it is evaluated on: the test split, or a part of it.
        views: views without labels, for epochs that learn from the classes alone.
        start: the network whose weights training goes on from; it is trained itself. None: from
            scratch.
        runtime: device, processes and checkpoints.

    Raises:
        ConfigError: a batch is too small for so many processes.
        DivergedError: the loss stopped being finite.

    Source: arXiv:2306.13092 (SRe2L) section 3.3; EMA evaluation and zeta of arXiv:2404.13733 (EDC).
    Differs from the papers: last and EMA accuracy are reported beside the best on the test split.
    """
    device, world, checkpoints = runtime.device, runtime.world, runtime.checkpoints
    student = Student(task, images, test, torch.device(device), world, start)
    first, settings = student.resume(runtime), task.run.posttrain
    gpus = [device] if torch.device(device).type == "cuda" else []
    with (
        torch.random.fork_rng(devices=gpus),  # the seeds of an epoch are for dropout alone
        closing(labels_by_epoch(_epochs(student, first, labels, views))) as by_epoch,
    ):
        for epoch in range(first, settings.epochs):
            loss = student.epoch(epoch, next(by_epoch), runtime.progress)
            done = epoch + 1
            if done % settings.evaluate_every == 0 or done == settings.epochs:
                student.evaluate(done, loss)
            if checkpoints is not None and _is_kept(done, settings.epochs):
                checkpoints.save(done, student.state)
    return TrainedStudent(student.result(), student.model, student.ema.model)


def _epochs(
    student: Student, first: int, labels: LabelSource, views: LabelSource | None
) -> Iterator[EpochLabels]:
    """Yield the label source of each epoch from `first` on, and the views it reads."""
    for epoch in range(first, student.settings.epochs):
        source = views if views is not None and is_hard(student.settings, epoch) else labels
        yield source, student.views(epoch, len(source.shards))


def _is_kept(done: int, epochs: int) -> bool:
    """Return whether the state after so many epochs is kept; that of the last one always is."""
    return done == epochs or done % -(-epochs // CHECKPOINTS) == 0
