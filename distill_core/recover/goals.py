"""What the images of a batch are to become under one teacher, from config and real images.

Axes: B images, T = f^2 tiles of an image, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.errors import ConfigError
from distill_core.models.convolutions import Probe
from distill_core.models.moments import PATCH_SIDE
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.step import Goal
from distill_core.recover.terms import (
    NEEDS_BATCH_NORMS,
    NEEDS_CHANNELS,
    NEEDS_PATCHES,
    build_objective,
)
from distill_core.seeds import generator, philox_key
from distill_core.sharding import Batch
from distill_core.storage.statistics_files import Expected
from distill_core.transforms.pixel_space import PixelSpace


def goal_of(
    batch: Batch,
    teacher: FrozenTeacher,
    config: RecoverConfig,
    expected: Expected,
    *,
    like: Tensor,
    student: FrozenTeacher | None = None,
) -> Goal:
    """Return the goal of a batch under one teacher, with dtype and device of `like`.

    Without a student no term can ask it.
    """
    convolutions, asked = config.convolutions, student is not None
    weights = {name: w for name, w in config.terms.items() if asked or name != "adversarial"}
    objective = build_objective(weights)
    return Goal(
        torch.tensor([image.label for image in batch], device=like.device),
        teacher,
        objective,
        PixelSpace.of(teacher.spec.mean, teacher.spec.std, like),
        first_layer_factor=config.first_layer_factor,
        variance_factor=config.variance_factor,
        temperature=1.0 if config.flatness is None else config.flatness.temperature,
        first_convolution_factor=1.0 if convolutions is None else convolutions.first_layer_factor,
        moments={
            term: tuple((like.new_tensor(mean), like.new_tensor(var)) for mean, var in layers)
            for term, layers in expected.moments.items()
        },
        features={term: like.new_tensor(wanted) for term, wanted in expected.features.items()},
        probe=_probe(config),
        compiled=config.compile,
        tiles=config.tiles,
        student=student if "adversarial" in objective else None,
    )


def _probe(config: RecoverConfig) -> Probe | None:
    """Return what the terms ask of the convolutions; None if nothing."""
    originals, convolutions = config.originals, config.convolutions
    probe = Probe(
        channels=bool(config.active_terms & NEEDS_CHANNELS),
        patches=bool(config.active_terms & NEEDS_PATCHES),
        layer=None if originals is None else originals.layer,
        grid=1 if originals is None else originals.grid,
        patch_side=PATCH_SIDE if convolutions is None else convolutions.patch,
    )
    return None if probe == Probe() else probe


def check_batch_norms(config: RecoverConfig, teachers: Sequence[FrozenTeacher]) -> None:
    """Refuse batch norm terms where no teacher has a batch norm; in a pool, some may lack it.

    Raises:
        ConfigError: none has.
    """
    asked = config.active_terms & NEEDS_BATCH_NORMS
    if asked and not any(teacher.num_statistics for teacher in teachers):
        raise ConfigError(
            f"recover.terms: {teachers[0].spec.model.title} has no batch norm layer, {min(asked)} "
            "needs one. Use a teacher with batch norm, or drop the term."
        )


def skipped_convolutions(
    count: int, config: RecoverConfig, batch: Batch, *, seed: int, step: int
) -> frozenset[int]:
    """Draw which of so many convolutions a step leaves out, each with the chance of the config."""
    rate = 0.0 if config.convolutions is None else config.convolutions.drop_rate
    if not rate:
        return frozenset()
    rng = generator(philox_key(seed, "recover", "convolutions", batch), step)
    return frozenset((rng.random(count) < rate).nonzero()[0].tolist())
