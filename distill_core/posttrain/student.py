"""A student in training: its optimiser, its averaged weights, its accuracies, and one epoch.

Axes: N images, B in a batch, C classes, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from distill_core.config.schema import RunConfig
from distill_core.config.students import SetName
from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DivergedError
from distill_core.evaluation.accuracy import AccuracyHistory
from distill_core.labels.sources import Labels
from distill_core.labels.views import Renderer
from distill_core.models.build import build_model
from distill_core.models.layout import CONVOLUTION_DTYPES, training_layout
from distill_core.posttrain.epochs import EpochRenderer, is_hard, views_of_epoch
from distill_core.posttrain.placing import PlacedImages, place
from distill_core.progress import Progress, silent
from distill_core.seeds import derive_seed, generator, philox_key
from distill_core.training.checkpoint import pack_state, restore
from distill_core.training.distributed import DistributedContext
from distill_core.training.losses import (
    best_temperature,
    kl_soft_labels,
    mixed_cross_entropy,
    temperature_at,
)
from distill_core.training.optim import WeightEma, build_optimizer, lr_at, set_lr
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled, evaluate
from distill_core.transforms.upload import upload


@dataclass(frozen=True)
class StudentTask:
    """One cell of the accuracy table."""

    run: RunConfig
    student: ModelConfig
    seed: int
    images_of: SetName


class Student:
    """A student with its optimiser, its averaged weights and its accuracies."""

    def __init__(
        self,
        task: StudentTask,
        images: Labelled | PlacedImages,
        test: Labelled,
        device: torch.device,
        world: DistributedContext,
        start: nn.Module | None = None,
    ) -> None:
        self.task, self.test, self.device, self.world = task, test, device, world
        self.settings = task.run.posttrain
        _check_share(min(self.settings.batch_size, len(images.labels)), world)
        placed = place(images, device)
        self.labels = upload(images.labels, device)
        self.dtype = torch.float64 if task.run.precision == "float64" else torch.float32
        data, mix = task.run.data, task.run.relabel.mix.kind
        self.renderer = EpochRenderer(placed.pixels, Renderer(mix, data.mean, data.std, self.dtype))
        self.seed = derive_seed(task.run.seed, "posttrain", task.seed)
        classes = data.num_classes
        model = build_model(task.student, classes, seed=self.seed) if start is None else start
        convolutions = CONVOLUTION_DTYPES[task.run.precision]
        self.layout = training_layout(model, device=device, dtype=convolutions)
        self.model = model.to(device, self.dtype).to(memory_format=self.layout)
        self.optimizer = build_optimizer(self.model, self.settings.optimizer)
        self.ema = WeightEma(self.model, self.settings.ema_decay)
        # `model` is stored, averaged and evaluated, whether `parallel` is compiled or not.
        compiled = _compiled(self.model, self.layout) if self.settings.compile else self.model
        self.parallel = world.wrap(compiled)
        self.history = AccuracyHistory()
        self.temperature = self.settings.temperature  # of the teacher, in the current epoch
        self.own_temperature = self.settings.student_temperature  # None: the teacher's
        self.hard = task.images_of == "hard_labels"  # in the current epoch
        self.last: tuple[Tensor, Tensor]  # logits and the teacher's probabilities, latest batch

    def resume(self, runtime: TrainingRuntime) -> int:
        """Restore the furthest checkpoint; return how many epochs are done."""
        restored = restore(
            runtime.checkpoints,
            self.model,
            self.optimizer,
            ema=self.ema,
            read=lambda meta: (AccuracyHistory.from_dict(meta), meta.get("own_temperature")),
            notice=runtime.notice,
        )
        if restored is None:
            return 0
        epochs, (self.history, temperature) = restored
        if temperature is not None:
            self.own_temperature = temperature
        return epochs

    def state(self) -> bytes:
        """Return a checkpoint, all that a resumed training needs."""
        meta = self.history.to_dict()
        if self.settings.calibrate_student:
            meta["own_temperature"] = self.own_temperature
        return pack_state(self.model, self.optimizer, ema=self.ema, meta=meta)

    def views(self, epoch: int, shards: int) -> tuple[int, ...]:
        """Return the view ids that an epoch reads, by image shard."""
        return views_of_epoch(self.task.run, epoch, seed=self.seed, shards=shards)

    def epoch(self, epoch: int, labels: Labels, progress: Progress = silent) -> float:
        """Train on one view of every image; return the mean loss.

        Args:
            epoch: counted from 0.
            labels: of the epoch.
            progress: called after every step with the steps done and those of the whole training.
        """
        torch.manual_seed(derive_seed(self.seed, "dropout", epoch, self.world.rank))
        self.model.train()
        settings = self.settings
        self.temperature = temperature_at(
            settings.temperature, settings.temperature_decay, epoch, epochs=settings.epochs
        )
        self.hard = self.task.images_of == "hard_labels" or is_hard(settings, epoch)
        total = torch.zeros((), device=self.device, dtype=self.dtype)
        batches = list(self._batches(epoch))
        with closing(self.views_of(batches, labels)) as views:
            for number, rows in enumerate(batches):
                step = epoch * len(batches) + number
                set_lr(self.optimizer, self._lr(step, len(batches)))
                total += self._step(rows, labels, views)
                progress(step + 1, settings.epochs * len(batches))
        mean = float(total) / len(batches)
        if not math.isfinite(mean):
            raise DivergedError(
                f"posttrain: {self.task.images_of} seed {self.task.seed}: loss {mean} in epoch "
                f"{epoch + 1} is not finite. Lower posttrain.optimizer.lr."
            )
        if settings.calibrate_student and not self.hard:
            self.own_temperature = self.world.broadcast(lambda: best_temperature(*self.last))
        return mean

    def evaluate(self, epoch: int, loss: float) -> None:
        """Evaluate the raw and the averaged weights on the real test images."""
        self.world.share_buffers(self.model)
        self.ema.copy_buffers(self.model)
        raw, ema = (
            evaluate(model, self.test, self.task.run, device=self.device, world=self.world)
            for model in (self.model, self.ema.model)
        )
        self.history.add(epoch, loss, raw=raw, ema=ema)

    def result(self) -> dict[str, Any]:
        """Return the facts of this cell of the table."""
        steps = self.settings.epochs * len(list(self._batches(0)))
        return {
            "student": self.task.student.title,
            "seed": self.task.seed,
            "set": self.task.images_of,
            **self.history.to_dict(),
            "images": len(self.labels),
            "steps": steps,
        }

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the rows of each batch; a last batch too small to share joins the one before it.

        Every process needs two images: batch norm cannot train on one image of one pixel.
        """
        key = philox_key(self.seed, "posttrain", "order")
        order = generator(key, epoch).permutation(len(self.labels))
        cuts = list(range(self.settings.batch_size, len(order), self.settings.batch_size))
        if cuts and len(order) - cuts[-1] < 2 * self.world.size:
            cuts.pop()
        yield from np.split(order, cuts)

    def _lr(self, step: int, steps_per_epoch: int) -> float:
        settings = self.settings
        return lr_at(
            settings.schedule,
            settings.optimizer.lr,
            step=step,
            steps_per_epoch=steps_per_epoch,
            epochs=settings.epochs,
        )

    def views_of(
        self, batches: Sequence[np.ndarray], labels: Labels
    ) -> Generator[Tensor, None, None]:
        """Yield the rendered views of each micro-batch of this process, batch by batch."""
        parts = [part for rows in batches for part in self._parts(rows)]
        return self.renderer.parts(parts, labels.drawn)

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Cut this process's share of a batch into micro-batches."""
        share = rows[self.world.share(len(rows))]
        cuts = list(range(size := self.settings.micro_batch or len(share), len(share), size))
        if cuts and len(share) - cuts[-1] < 2:
            cuts.pop()  # batch norm cannot train on one image of one pixel
        return np.split(share, cuts)

    def _step(self, rows: np.ndarray, labels: Labels, views: Iterator[Tensor]) -> Tensor:
        """Take one optimiser step; micro-batches and processes add up to the batch's gradient.

        Batch norm apart: it sees one micro-batch of one process at a time.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device, dtype=self.dtype)
        parts = self._parts(rows)
        for number, part in enumerate(parts, start=1):
            with self.world.sync_gradients(self.parallel, now=number == len(parts)):
                # Averaging over processes divides by their number, whatever each one's share is.
                share = self.world.size * len(part) / len(rows)
                loss = self._loss(part, labels, next(views)) * share
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.optimizer.step()
        self.ema.update(self.model)
        return total

    def _loss(self, rows: np.ndarray, labels: Labels, views: Tensor) -> Tensor:
        half = self.task.run.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            student = self.parallel(views.to(memory_format=self.layout))
        student = student.to(self.dtype)  # losses and updates stay wide
        if self.hard:
            return self._hard(student, rows, labels)
        soft = self._soft(student, labels.logits(rows).to(student))
        weight = self.settings.hard_weight
        return soft + weight * self._hard(student, rows, labels) if weight else soft

    def _soft(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the distance between the predictions of the student and of the teacher."""
        settings = self.settings
        if settings.loss == "mse":
            return mse_loss(student, teacher)
        if settings.calibrate_student:
            self.last = student.detach(), (teacher / self.temperature).softmax(1)
        return kl_soft_labels(
            student,
            teacher,
            temperature=self.temperature,
            squared=settings.temperature_squared,
            smoothing=settings.logit_smoothing,
            student_temperature=self.own_temperature,
        )

    def _hard(self, student: Tensor, rows: np.ndarray, labels: Labels) -> Tensor:
        """Return the cross-entropy with the classes of the images, mixed as the images are."""
        mix = labels.drawn.mix.rows(rows)
        partners = self.labels[upload(mix.partners.astype(np.int64), self.device)]
        share = upload(mix.lam, self.device).to(student.dtype)
        own = self.labels[upload(rows, self.device)]
        smoothing = self.settings.hard_smoothing
        return mixed_cross_entropy(student, own, partners, share, smoothing=smoothing)


def _compiled(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    # On a CPU the compiler puts the channels last by itself unless it is told not to.
    options: dict[str, Any] | None = None
    if layout != torch.channels_last:
        options = {"layout_optimization": False}
    compiled: nn.Module = torch.compile(model, options=options)  # type: ignore[assignment]
    return compiled


def _check_share(count: int, world: DistributedContext) -> None:
    """Raise a ConfigError if a batch leaves a process with nothing to average."""
    if world.size > 1 and count < 2 * world.size:
        raise ConfigError(
            f"posttrain.processes = {world.size}: a batch has {count} images, at least "
            f"{2 * world.size} expected. Use fewer processes or a larger posttrain.batch_size."
        )
