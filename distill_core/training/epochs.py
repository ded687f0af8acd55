"""Supervised training on labelled real images, epoch by epoch.

A batch has as many parts as the config has processes. A process computes one part or, where a gang
has fewer processes than that, several one after another. Batch norm and dropout belong to a part,
not to a process. The result therefore does not depend on the number of processes, except for the
order in which gradients are added up.

Axes: n images in the split, B in the batch of all processes, B' of this process, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distill_core.config.training import TrainingConfig
from distill_core.errors import DivergedError
from distill_core.seeds import generator, philox_key
from distill_core.training.distributed import DistributedContext
from distill_core.training.optim import lr_at, set_lr
from distill_core.training.random_streams import RandomStreams
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Source, TrainState


@dataclass(frozen=True)
class EpochProgress:
    """The part of an epoch that is done."""

    batches: int = 0
    loss: float = 0.0  # sum of the losses of these batches, of the first part of each


# Called with the batches of the epoch that are done, of how many, and the sum of their losses.
AfterStep = Callable[[int, int, Tensor], None]


def ignore_step(batches: int, of: int, losses: Tensor) -> None:
    """Ignore a step."""


@dataclass(frozen=True)
class BatchParts:
    """The parts of each batch that one process computes."""

    count: int  # parts of a batch, over all processes
    mine: range  # numbers of those of this process
    world: DistributedContext
    streams: RandomStreams  # one per part of this process

    @classmethod
    def of(cls, training: TrainingConfig, runtime: TrainingRuntime) -> BatchParts:
        """Return the parts of this process: as many in all as the config has processes."""
        count = max(training.processes, runtime.world.size)
        mine = runtime.world.parts(count)
        return cls(count, mine, runtime.world, RandomStreams(runtime.device, len(mine)))

    def bounds(self, size: int) -> list[int]:
        """Return where the parts of this process begin in a batch of `size`, and the last ends."""
        return [size * part // self.count for part in (*self.mine, self.mine.stop)]


def train_epoch(
    model: nn.Module,
    train_state: TrainState,
    source: Source,
    parts: BatchParts,
    *,
    epoch: int,
    done: EpochProgress = EpochProgress(),
    after_step: AfterStep = ignore_step,
) -> dict[str, float]:
    """Train on every image once, without an incomplete last batch; return the epoch's record.

    Args:
        model: `train_state.model`, wrapped for the processes of the training.
        train_state: the training.
        source: the training images.
        parts: those of each batch that this process computes.
        epoch: counted from 0; determines the order.
        done: the part of the epoch that an earlier execution has trained on.
        after_step: called after every step.

    Returns:
        ``epoch`` (counted from 1), the last ``lr``, and the mean ``loss`` of the first part of each
        batch that this process computes.

    Raises:
        DivergedError: the mean loss is not finite.
    """
    run, training, count = train_state.run, train_state.training, len(source.labels)
    order = generator(philox_key(run.seed, "squeeze", "order"), epoch).permutation(count)
    size = min(training.batch_size, count)
    steps, bounds = count // size, parts.bounds(size)
    total = torch.full((), done.loss, device=source.labels.device)
    lr, first = 0.0, epoch * steps
    model.train()
    rows = [order[number * size : (number + 1) * size] for number in range(done.batches, steps)]
    share = slice(bounds[0], bounds[-1])
    batches = source.batches(rows, run, first=first + done.batches, share=share)
    with closing(batches):
        for number, (images, labels) in enumerate(batches, done.batches):
            lr = lr_at(
                training.schedule,
                training.optimizer.lr,
                step=first + number,
                steps_per_epoch=steps,
                epochs=training.epochs,
            )
            set_lr(train_state.optimizer, lr)
            total += train_step(model, train_state, images, labels, parts, size=size)
            after_step(number + 1, steps, total)
    loss = checked_loss(total, epoch) / steps
    return {"epoch": epoch + 1, "lr": lr, "loss": loss}


def checked_loss(total: Tensor, epoch: int) -> float:
    """Return the sum of the losses of an epoch so far; the host waits for it.

    Raises:
        DivergedError: it is not finite.
    """
    loss = float(total)
    if not math.isfinite(loss):
        raise DivergedError(
            f"squeeze: the mean loss of epoch {epoch + 1} is {loss}, expected a finite number. "
            "Lower squeeze.training.optimizer.lr, or warm up longer."
        )
    return loss


def train_step(
    model: nn.Module,
    train_state: TrainState,
    images: Tensor,
    labels: Tensor,
    parts: BatchParts,
    *,
    size: int,
) -> Tensor:
    """Take one optimiser step; return the mean loss of the first part, detached.

    Args:
        model: `train_state.model`, wrapped for the processes of the training.
        train_state: the training.
        images: (B', 3, S, S), normalised.
        labels: (B',) int64.
        parts: of this process.
        size: B.
    """
    train_state.optimizer.zero_grad(set_to_none=True)
    bounds, world = parts.bounds(size), parts.world
    losses, buffers = list[Tensor](), list[Tensor]()
    for number in range(len(parts.mine)):
        begin, end = (bound - bounds[0] for bound in bounds[number : number + 2])
        last = number + 1 == len(parts.mine)
        with parts.streams.of(number), world.sync_gradients(model, now=last):
            part = slice(begin, end)
            # A weight of processes / B: gradients averaged over processes then equal those of the
            # mean over the whole batch, however it is divided.
            weight = world.size / size
            losses.append(_backward(model, train_state, images[part], labels[part], weight))
        if number == 0 and not last:
            buffers = [buffer.clone() for buffer in train_state.model.buffers()]
    # The running statistics are those of the first part, as if each part had its own process.
    for buffer, kept in zip(train_state.model.buffers() if buffers else (), buffers, strict=True):
        buffer.copy_(kept)
    train_state.optimizer.step()
    return losses[0] if parts.count == world.size else losses[0] * (parts.count / world.size)


def _backward(
    model: nn.Module, train_state: TrainState, images: Tensor, labels: Tensor, weight: float
) -> Tensor:
    """Add the gradients of one part; return its loss, detached; `weight` is that of one image."""
    losses = cross_entropy(
        train_state.forward(model, images),
        labels,
        reduction="sum",
        label_smoothing=train_state.training.label_smoothing,
    )
    loss = weight * losses
    torch.autograd.backward(loss)
    return loss.detach()
