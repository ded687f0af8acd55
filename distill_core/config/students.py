"""The relabel and post-train parts of a config."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from distill_core.config.committee import WeightingConfig
from distill_core.config.fields import Fraction, Frozen, NonNegativeFloat, NonNegativeInt
from distill_core.config.training import ModelConfig, OptimizerConfig, ScheduleConfig

LEVELS_FROM = (
    96  # pixels: from this side on views have whole levels, see `distill_core.transforms.crops`
)
Rest = Literal["none", "mean"]  # what top-k labels say of the other classes, see `topk.restore`
SetName = Literal["distilled", "random_real", "hard_labels"]


class MixConfig(Frozen):
    """What is mixed into a label view."""

    kind: Literal["none", "cutmix", "mixup", "cutout"]
    alpha: PositiveFloat = 1.0  # Beta(alpha, alpha) of cutmix and mixup
    cutout: Fraction = 0.5  # side of the hole as a fraction of S; colour uniform random


class RandAugmentConfig(Frozen):
    """Operations on the stored pixels, drawn per image before the crop (RandAugment)."""

    space: Literal["timm", "torchvision"] = "timm"  # operations there are, and their ranges
    operations: PositiveInt  # in a row
    magnitude: Annotated[float, Field(ge=0.0, le=10.0)]  # torchvision's 9 of 30 is 3
    spread: NonNegativeFloat = 0.0  # standard deviation of the magnitude
    chance: Fraction = 0.5  # of each operation to happen


class RelabelConfig(Frozen):
    """How teachers describe views of the images."""

    scheme: Literal["auto", "features", "logits", "topk", "online"] = "auto"
    bits: Literal[8, 4] = 8  # of a feature
    topk: PositiveInt | None = None  # logits kept of each label; goes with scheme=topk (LPQLD)
    # of squeeze; the mean of their logits is the label
    teachers: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    weighting: WeightingConfig | None = None  # of the mean; None: all count the same
    views: PositiveInt  # views per image, of which `prune` are left out
    prune: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # share that is never described (LPLD)
    views_per_shard: PositiveInt = 50  # views in one label shard
    rand_augment: RandAugmentConfig | None = None  # comes first
    # Patches per side of a grid whose rows and columns are shuffled before the crop (RDED)
    patches: Annotated[int, Field(ge=2, le=255)] | None = None
    crop: tuple[Fraction, Fraction] | None
    flip: bool
    mix: MixConfig
    # Images of a shard whose batch norm statistics are pooled, in place of the running ones (BSSL)
    batch_statistics: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _topk_is_said(self) -> Self:
        if (self.scheme == "topk") != (self.topk is not None):
            raise ValueError("topk goes with scheme=topk, and only with it")
        return self

    @property
    def stored_views(self) -> int:
        """Return the views per image that are described; without pruning, all of them."""
        return max(1, math.floor(self.views * (1 - self.prune) + 1e-9))

    @model_validator(mode="after")
    def _every_teacher_has_a_prior(self) -> Self:
        if self.weighting is not None and len(self.weighting.priors) != len(self.teachers):
            raise ValueError(
                f"weighting.priors: one per teacher, {len(self.teachers)} expected, "
                f"{len(self.weighting.priors)} given"
            )
        return self


class TemperatureConfig(Frozen):
    """The teacher's temperature falls, so that the same logits teach anew (LPQLD).

    By steps, or without them along half a cosine over all epochs.
    """

    factor: Fraction | None = None
    every: PositiveInt | None = None  # epochs
    floor: PositiveFloat

    @model_validator(mode="after")
    def _steps_are_whole(self) -> Self:
        if (self.factor is None) != (self.every is None):
            raise ValueError("factor and every go together; without both it falls along a cosine")
        return self


class RoundsConfig(Frozen):
    """Images made in rounds, each aimed at what a student of those before gets wrong (CUDD).

    CUDD calls a round a curriculum. A student that is in training between two rounds is trained as
    in post-train, but for what stands here.
    """

    # ipc_index at which the second round begins, the third, ...; those beyond `ipc` are left out
    starts: tuple[PositiveInt, ...] = Field(min_length=1)
    student: ModelConfig
    epochs: PositiveInt
    warm_lr: PositiveFloat  # of students that go on from the one before; the first has post-train's

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"starts = {list(self.starts)} must ascend")
        return self


class PosttrainConfig(Frozen):
    """How students are trained and judged."""

    students: tuple[ModelConfig, ...] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    sets: tuple[SetName, ...] = ("distilled", "random_real", "hard_labels")
    epochs: PositiveInt
    # cycle: epoch e reads stored view e mod views; random: each image shard one drawn anew (LPLD)
    view_order: Literal["cycle", "random"] = "cycle"
    hard_epochs: tuple[NonNegativeInt, NonNegativeInt] | None = None  # first, after last (HALD)
    batch_size: PositiveInt
    micro_batch: PositiveInt | None = None  # images per backward pass; None: the whole batch
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    loss: Literal["kl", "mse"] = "kl"  # mse compares logits (G-VBSM, EDC)
    hard_weight: NonNegativeFloat = 0.0  # of cross-entropy with the class, beside the soft loss
    rest: Rest = "none"  # of top-k labels
    hard_smoothing: Fraction = 0.0  # of the classes in that cross-entropy
    temperature: PositiveFloat
    student_temperature: PositiveFloat | None = None  # None: the teacher's
    # After each epoch, the student's temperature that fits the last batch best, 0.01 to 1 (LPQLD)
    calibrate_student: bool = False
    temperature_decay: TemperatureConfig | None = None  # None: it stays
    temperature_squared: bool  # multiply the loss by T^2
    logit_smoothing: Fraction = 0.0  # share of a uniform vector mixed into the raw teacher logits
    ema_decay: Fraction = 0.99  # of the student's weights, per optimiser step
    evaluate_every: PositiveInt = 10  # epochs between evaluations; the last is always evaluated
    validation_shard: PositiveInt = 10_000  # test images per job of the final judgement
    processes: PositiveInt = 1  # two or more: DDP under Ray Train
    compile: bool = False  # the student's passes by torch.compile; rounds otherwise

    @model_validator(mode="after")
    def _student_can_learn(self) -> Self:
        first, stop = self.hard_epochs or (0, 1)
        if not first < stop <= max(self.epochs, 1):
            raise ValueError(
                f"hard_epochs = [{first}, {stop}]: first < after-last <= epochs = {self.epochs} "
                "expected"
            )
        if self.calibrate_student and (self.loss != "kl" or self.student_temperature is None):
            raise ValueError("calibrate_student goes with loss=kl and a student_temperature")
        return self
