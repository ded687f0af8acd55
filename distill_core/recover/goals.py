"""The goal of a batch under one teacher, from the config and from statistics of real images.

Axes: B images, T = f^2 tiles of an image, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.models.convolutions import Probe
from distill_core.models.moments import PATCH_SIDE
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.terms import (
    NEEDS_CHANNELS,
    NEEDS_PATCHES,
    Layers,
    Objective,
    build_objective,
)
from distill_core.seeds import generator, philox_key
from distill_core.sharding import Batch
from distill_core.storage.statistics_files import Expected
from distill_core.transforms.pixel_space import PixelSpace


@dataclass(frozen=True)
class Goal:
    """The objective of a batch under one teacher; nothing here changes with the step."""

    targets: Tensor  # (B,) int64
    teacher: FrozenTeacher
    objective: Objective
    space: PixelSpace  # of the images
    config: RecoverConfig
    moments: Mapping[str, Layers] = field(default_factory=dict)  # of real images, by term
    features: Mapping[str, Tensor] = field(default_factory=dict)  # (B, T, D), by term
    student: FrozenTeacher | None = None  # read by `adversarial`
    weight: float = 1.0
    input: PixelSpace | None = None  # of the teacher's input; None: that of the images
    student_input: PixelSpace | None = None  # likewise, of the student
    others: tuple[Goal, ...] = ()  # of the same step, with other teachers

    @property
    def members(self) -> tuple[Goal, ...]:
        """Return the goal itself and the others of the same step."""
        return (self, *self.others)

    @property
    def probe(self) -> Probe | None:
        """Return what the terms need measured at the convolutions; None if nothing."""
        originals, convolutions = self.config.originals, self.config.convolutions
        probe = Probe(
            channels=bool(self.config.active_terms & NEEDS_CHANNELS),
            patches=bool(self.config.active_terms & NEEDS_PATCHES),
            layer=None if originals is None else originals.layer,
            grid=1 if originals is None else originals.grid,
            patch_side=PATCH_SIDE if convolutions is None else convolutions.patch,
        )
        return None if probe == Probe() else probe

    def seen(self, images: Tensor) -> Tensor:
        """Return images as the teacher's input."""
        return images if self.input is None else self.space.converted(images, self.input)

    def seen_by_student(self, images: Tensor) -> Tensor:
        """Return images as the student's input."""
        to = self.student_input
        return images if to is None else self.space.converted(images, to)

    def select(self, rows: Tensor) -> Goal:
        """Return the goal of some of the images."""
        others = tuple(other.select(rows) for other in self.others)
        features = {term: targets[rows] for term, targets in self.features.items()}
        return replace(self, targets=self.targets[rows], features=features, others=others)


def goal_of(batch: Batch, place: int, setup: RecoverySetup, real: Expected) -> Goal:
    """Return the goal of a batch under one of the teachers of a recovery.

    Args:
        batch: the images.
        place: of the teacher in `setup.teachers`.
        setup: its config, and the student; without one the term `adversarial` is left out.
        real: statistics of real images that terms compare with.
    """
    like, teacher, student = setup.like, setup.teachers[place], setup.student
    terms, asks = setup.config.terms_of(place), student is not None
    objective = build_objective({n: w for n, w in terms.items() if asks or n != "adversarial"})
    return Goal(
        torch.tensor([image.label for image in batch], device=like.device),
        teacher,
        objective,
        setup.space,
        setup.config,
        moments={
            term: tuple((like.new_tensor(mean), like.new_tensor(var)) for mean, var in layers)
            for term, layers in real.moments.items()
        },
        features={term: like.new_tensor(targets) for term, targets in real.features.items()},
        student=student if "adversarial" in objective else None,
        input=setup.input_of(teacher),
        student_input=None if student is None else setup.input_of(student),
    )


def joint_goal(goals: Sequence[Goal], weights: Sequence[float]) -> Goal:
    """Return the weighted sum of goals as one: each step passes through all of their teachers.

    Source: arXiv:2501.07575 (CV-DD), committee voting.
    """
    first, *others = [replace(g, weight=w) for g, w in zip(goals, weights, strict=True)]
    return replace(first, others=tuple(others))


def skipped_convolutions(
    count: int, config: RecoverConfig, batch: Batch, *, seed: int, step: int
) -> frozenset[int]:
    """Draw which of `count` convolutions a step leaves out, each with the config's drop rate."""
    rate = 0.0 if config.convolutions is None else config.convolutions.drop_rate
    if not rate:
        return frozenset()
    rng = generator(philox_key(seed, "recover", "convolutions", batch), step)
    return frozenset((rng.random(count) < rate).nonzero()[0].tolist())
