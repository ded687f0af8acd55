"""Labelled real images, the network that is trained on them, and its accuracy.

Axes: n images in the split, B in the batch of all processes, B' of this process, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_core.config.schema import RunConfig
from distill_core.config.training import TrainingConfig
from distill_core.evaluation.accuracy import Accuracy, Hits, total
from distill_core.evaluation.metrics import EVALUATION_BATCH, count_hits
from distill_core.models.build import build_model, continue_from
from distill_core.models.layout import CONVOLUTION_DTYPES, training_layout
from distill_core.seeds import derive_seed, generator, philox_key
from distill_core.training.distributed import DistributedContext
from distill_core.training.optim import build_optimizer
from distill_core.transforms.train_augment import (
    Augmentation,
    apply_augmentation,
    sample_augmentation,
)
from distill_core.transforms.upload import upload

Blocks = Generator[np.ndarray, None, None]  # (m, 3, S, S) uint8


class Split(Protocol):
    """One split of the real images, wherever its pixels are."""

    @property
    def labels(self) -> np.ndarray:
        """Return the classes, (n,) int64."""
        ...

    def blocks(self, parts: Sequence[np.ndarray], side: int) -> Blocks:
        """Yield the pixels of some images, part by part.

        Args:
            parts: positions of the images of each part.
            side: S.
        """
        ...


@dataclass(frozen=True)
class Labelled:
    """One split of the real images, resident in memory."""

    pixels: np.ndarray  # (n, 3, S, S) uint8
    labels: np.ndarray  # (n,) int64

    def blocks(self, parts: Sequence[np.ndarray], side: int) -> Blocks:
        """Yield the pixels of some images; see `Split`."""
        return (self.pixels[part] for part in parts)


@dataclass(frozen=True)
class TrainState:
    """A network in training: the state that a step changes, and the settings of the run."""

    run: RunConfig
    training: TrainingConfig
    model: nn.Module
    optimizer: Optimizer
    device: str
    layout: torch.memory_format

    @classmethod
    def start(
        cls,
        run: RunConfig,
        training: TrainingConfig,
        *,
        device: str,
        weights: nn.Module | None = None,
    ) -> TrainState:
        """Return the network of a run, drawn from its seed or with given weights."""
        seed = derive_seed(run.seed, "squeeze", "model")
        model = build_model(run.squeeze.model, run.data.num_classes, seed=seed)
        if weights is not None:
            continue_from(model, weights)
        dtype = torch.float64 if run.precision == "float64" else torch.float32
        convolutions = CONVOLUTION_DTYPES[run.precision]
        layout = training_layout(model, device=device, dtype=convolutions)
        model = model.to(device, dtype).to(memory_format=layout)
        optimizer = build_optimizer(model, training.optimizer, nesterov=training.nesterov)
        return cls(run, training, model, optimizer, device, layout)

    def forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits (B', C) in the precision of the weights.

        Args:
            model: this network, wrapped for the processes of the training.
            images: (B', 3, S, S), normalised.
        """
        weights = next(self.model.parameters())
        half = self.run.precision == "bfloat16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
            logits: Tensor = model(images.to(weights.dtype, memory_format=self.layout))
        return logits.to(weights.dtype)


Batches = Generator[tuple[Tensor, Tensor], None, None]  # (B', 3, S, S) float32 and (B',) int64


class Source(Protocol):
    """Source of training images; the images of a step do not depend on its kind."""

    @property
    def labels(self) -> Tensor:
        """Return the labels (n,) int64, on the device that trains."""
        ...

    def batches(
        self, parts: Sequence[np.ndarray], run: RunConfig, *, first: int, share: slice
    ) -> Batches:
        """Yield this process's part of each batch, augmented and normalised.

        Args:
            parts: by step, the (B,) images of the whole batch.
            run: with the seed, augmentation and normalisation.
            first: number of the first step, counted over the whole training.
            share: the part of this process.
        """
        ...


@dataclass(frozen=True)
class Resident:
    """The training images on the device that trains."""

    pixels: Tensor  # (n, 3, S, S) uint8
    labels: Tensor  # (n,) int64

    @classmethod
    def of(cls, split: Labelled, *, device: str) -> Resident:
        """Move a split to the device, once."""
        return cls(upload(split.pixels, device), upload(split.labels, device))

    def batches(
        self, parts: Sequence[np.ndarray], run: RunConfig, *, first: int, share: slice
    ) -> Batches:
        """Yield this process's part of each batch; see `Source`."""
        for step, rows in enumerate(parts, first):
            yield self.batch(rows, run, step=step, share=share)

    def batch(
        self, rows: np.ndarray, run: RunConfig, *, step: int, share: slice
    ) -> tuple[Tensor, Tensor]:
        """Return this process's part of the batch of a step."""
        chosen = upload(rows[share], self.pixels.device)
        pixels = self.pixels.index_select(0, chosen)
        return augmented(pixels, len(rows), run, step=step, share=share), self.labels[chosen]


def augmentation_of(run: RunConfig, count: int, *, step: int, share: slice) -> Augmentation:
    """Return the draws of this process's part of a batch.

    Args:
        run: with the seed and the augmentation.
        count: B.
        step: counted over the whole training; determines the draws of the whole batch.
        share: the part of this process.
    """
    training = run.squeeze.training
    assert training is not None
    rng = generator(philox_key(run.seed, "squeeze", "augment"), step)
    whole = training.crop_from == "image"
    side, config = run.data.side, training.augment
    draw = sample_augmentation(rng, config, count=count, side=side, whole_images=whole)
    return draw.take(np.arange(count)[share])


def augmented(pixels: Tensor, count: int, run: RunConfig, *, step: int, share: slice) -> Tensor:
    """Return this process's part of a batch, augmented and normalised.

    Args:
        pixels: (B', 3, S, S) uint8 of this part.
        count: B.
        run: with the seed, augmentation and normalisation.
        step: see `augmentation_of`.
        share: the part of this process.

    Returns:
        (B', 3, S, S) float32, on the device of `pixels`.
    """
    assert run.squeeze.training is not None
    draw, config = augmentation_of(run, count, step=step, share=share), run.squeeze.training.augment
    return apply_augmentation(pixels, draw, config, mean=run.data.mean, std=run.data.std)


def evaluation_parts(count: int) -> list[np.ndarray]:
    """Return the positions of `count` images in the batches in which they are evaluated."""
    places = np.arange(count)
    return [places[n : n + EVALUATION_BATCH] for n in range(0, count, EVALUATION_BATCH)]


def evaluate(
    model: nn.Module,
    test: Split,
    run: RunConfig,
    *,
    device: str | torch.device,
    world: DistributedContext = DistributedContext(),
) -> Accuracy:
    """Return the accuracy of a network on a split, in percent.

    The processes share the images, so that none waits for another; all of them must call this.
    """
    world.share_buffers(model)
    mean, std, counted = run.data.mean, run.data.std, Hits()
    # Each process takes whole batches: a network may round differently in batches of another size.
    parts = evaluation_parts(len(test.labels))[world.rank :: world.size]
    with closing(test.blocks(parts, run.data.side)) as blocks:
        for part, pixels in zip(parts, blocks, strict=True):
            labels = test.labels[part]
            counted += total(count_hits(model, pixels, labels, mean=mean, std=std, device=device))
    return Hits(*world.sum((counted.images, counted.top1, counted.top5))).accuracy
