"""The values that all batches of a recovery share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.config.terms import NEEDS_BATCH_NORMS
from distill_core.errors import ConfigError
from distill_core.models.teacher import FrozenTeacher
from distill_core.transforms.pixel_space import PixelSpace


@dataclass(frozen=True)
class RecoverySetup:
    """The config, the networks and the seed of a recovery.

    Images are computed on the device and in the precision of the teachers.

    Args:
        config: steps, terms, views and update; 0 steps return the start unchanged.
        teachers: frozen, on one device; they take turns, one a step, unless `config.committee`.
        seed: the run's seed.
        student: the network that the term `adversarial` reads, frozen, on the same device; without
            one that term is left out.

    Raises:
        ConfigError: a term needs batch norm statistics and no teacher has any.
    """

    config: RecoverConfig
    teachers: Sequence[FrozenTeacher]
    seed: int
    student: FrozenTeacher | None = None

    def __post_init__(self) -> None:
        needy = self.config.active_terms & NEEDS_BATCH_NORMS
        if needy and not any(teacher.num_statistics for teacher in self.teachers):
            raise ConfigError(
                f"recover.terms: {self.teachers[0].spec.model.title} has no batch norm layer, "
                f"{min(needy)} needs one. Use a teacher with batch norm, or drop the term."
            )

    @property
    def side(self) -> int:
        """Return the side of the images, in pixels."""
        return self.teachers[0].spec.side

    @property
    def space(self) -> PixelSpace:
        """Return the space of the images that are optimised: see `RecoverConfig.space`."""
        if self.config.space == "pixel":
            return PixelSpace.of((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), self.like)
        return self.space_of(self.teachers[0])

    def space_of(self, network: FrozenTeacher) -> PixelSpace:
        """Return the normalised space of a network."""
        return PixelSpace.of(network.spec.mean, network.spec.std, self.like)

    def input_of(self, network: FrozenTeacher) -> PixelSpace | None:
        """Return the space that a network's input is brought to; None: that of the images."""
        spec, first = network.spec, self.teachers[0].spec
        same = (spec.mean, spec.std) == (first.mean, first.std)
        return None if same and self.config.space == "teacher" else self.space_of(network)

    @property
    def like(self) -> Tensor:
        """Return an empty tensor with the dtype and the device of the images."""
        weight = self.teachers[0].head.weight
        return torch.empty(0, dtype=weight.dtype, device=weight.device)
