"""The relabel and post-train parts of a config."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from distill_core.config.committee import WeightingConfig
from distill_core.config.fields import (
    MAX_TEACHERS,
    Classes,
    Count,
    CountOrZero,
    Fraction,
    Frozen,
    NonNegativeFloat,
    Processes,
    Seed,
)
from distill_core.config.training import ModelConfig, OptimizerConfig, ScheduleConfig

LEVELS_FROM = 96  # side in pixels from which views have whole levels, see `transforms.crops`
Rest = Literal["none", "mean"]  # logits of the other classes of top-k labels, see `labels.topk`
SetName = Literal["distilled", "random_real", "hard_labels"]


class MixConfig(Frozen):
    """Mixing of two images in a label view."""

    kind: Literal["none", "cutmix", "mixup", "cutout"]
    alpha: PositiveFloat = 1.0  # Beta(alpha, alpha) of cutmix and mixup
    cutout: Fraction = 0.5  # side of the hole as a fraction of S; colour uniform random


class RandAugmentConfig(Frozen):
    """Operations on the stored pixels, drawn per image before the crop (RandAugment)."""

    space: Literal["timm", "torchvision"] = "timm"  # the set of operations and their ranges
    operations: Count  # applied in sequence
    magnitude: Annotated[float, Field(ge=0.0, le=10.0)]  # torchvision's 9 of 30 is 3
    spread: NonNegativeFloat = 0.0  # standard deviation of the magnitude
    chance: Fraction = 0.5  # probability that an operation is applied


class RelabelConfig(Frozen):
    """Soft labels: the views of the images and the teachers that label them."""

    scheme: Literal["auto", "features", "logits", "topk", "online"] = "auto"
    bits: Literal[8, 4] = 8  # of a feature
    topk: Classes | None = None  # logits kept per label; requires scheme=topk (LPQLD)
    # indices of squeeze; the label is the mean of their logits
    teachers: tuple[CountOrZero, ...] = Field(default=(0,), min_length=1, max_length=MAX_TEACHERS)
    weighting: WeightingConfig | None = None  # of the mean; None: equal weights
    views: Count  # views per image, before pruning
    prune: Annotated[float, Field(ge=0.0, lt=1.0)] = (
        0.0  # share of the views that gets no label (LPLD)
    )
    views_per_shard: Count = 50  # views in one label shard
    rand_augment: RandAugmentConfig | None = None  # applied first
    # Patches per side of a grid whose rows and columns are shuffled before the crop (RDED)
    patches: Annotated[int, Field(ge=2, le=255)] | None = None
    crop: tuple[Fraction, Fraction] | None
    flip: bool
    mix: MixConfig
    # Images per batch whose own batch norm statistics replace the running ones (BSSL)
    batch_statistics: Annotated[Count, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _topk_is_consistent(self) -> Self:
        if (self.scheme == "topk") != (self.topk is not None):
            raise ValueError("topk is required with scheme=topk and not allowed otherwise")
        return self

    @property
    def stored_views(self) -> int:
        """Return the labelled views per image; without pruning, all of them."""
        return max(1, math.floor(self.views * (1 - self.prune) + 1e-9))

    @model_validator(mode="after")
    def _every_teacher_has_a_prior(self) -> Self:
        if self.weighting is not None and len(self.weighting.priors) != len(self.teachers):
            raise ValueError(
                f"weighting.priors has {len(self.weighting.priors)} values, expected "
                f"{len(self.teachers)}, one per teacher"
            )
        return self


class TemperatureConfig(Frozen):
    """Decay of the teacher's temperature, so that stored logits stay informative (LPQLD).

    By `factor` every `every` epochs, or else along half a cosine over all epochs.
    """

    factor: Fraction | None = None
    every: Count | None = None  # epochs
    floor: PositiveFloat

    @model_validator(mode="after")
    def _steps_are_consistent(self) -> Self:
        if (self.factor is None) != (self.every is None):
            raise ValueError(
                "set both factor and every for a decay by steps, or neither for a cosine"
            )
        return self


class RoundsConfig(Frozen):
    """Images made in rounds, each targeting the errors of a student of the previous ones (CUDD).

    CUDD calls a round a curriculum. The students trained between rounds use the post-train
    settings, except for those given here.
    """

    # ipc_index at which the second, third, ... round begins; values beyond `ipc` are ignored
    starts: tuple[Count, ...] = Field(min_length=1, max_length=1000)
    student: ModelConfig
    epochs: Count
    warm_lr: PositiveFloat  # of students that continue another; the first uses post-train's lr

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"starts = {list(self.starts)} must be in ascending order")
        return self


class PosttrainConfig(Frozen):
    """Training and evaluation of students."""

    students: tuple[ModelConfig, ...] = Field(max_length=100)  # none: no student is trained
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, max_length=1000)
    sets: tuple[SetName, ...] = ("distilled", "random_real", "hard_labels")
    epochs: Count
    # cycle: epoch e reads stored view e mod views; random: one view drawn per image shard (LPLD)
    view_order: Literal["cycle", "random"] = "cycle"
    hard_epochs: tuple[CountOrZero, CountOrZero] | None = (
        None  # first epoch, epoch after the last (HALD)
    )
    batch_size: Count
    micro_batch: Count | None = None  # images per backward pass; None: the whole batch
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    loss: Literal["kl", "mse"] = "kl"  # mse compares logits (G-VBSM, EDC)
    hard_weight: NonNegativeFloat = (
        0.0  # weight of cross-entropy with the class, added to the soft loss
    )
    rest: Rest = "none"  # of top-k labels
    hard_smoothing: Fraction = 0.0  # label smoothing of that cross-entropy
    temperature: PositiveFloat
    student_temperature: PositiveFloat | None = None  # None: the teacher's
    # After each epoch, refit the student's temperature in 0.01 to 1 on the last batch (LPQLD)
    calibrate_student: bool = False
    temperature_decay: TemperatureConfig | None = None  # None: constant
    temperature_squared: bool  # multiply the loss by T^2
    logit_smoothing: Fraction = 0.0  # share of a uniform vector mixed into the raw teacher logits
    ema_decay: Fraction = 0.99  # of the student's weights, per optimiser step
    evaluate_every: Count = 10  # epochs between evaluations; the last is always evaluated
    validation_shard: Count = 10_000  # test images per job of the final evaluation
    processes: Processes = 1  # two or more: DDP under Ray Train
    compile: bool = False  # torch.compile for the student; changes the rounding

    @model_validator(mode="after")
    def _losses_are_consistent(self) -> Self:
        first, stop = self.hard_epochs or (0, 1)
        if not first < stop <= max(self.epochs, 1):
            raise ValueError(
                f"hard_epochs = [{first}, {stop}] must satisfy first < after-last <= epochs = "
                f"{self.epochs}"
            )
        if self.calibrate_student and (self.loss != "kl" or self.student_temperature is None):
            raise ValueError("calibrate_student requires loss=kl and a student_temperature")
        return self
