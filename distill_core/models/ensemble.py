"""Several teachers used together: their choice, their weights, and their mean as one teacher.

The features of an ensemble are those of its members side by side, and one head maps them to the
mean of the logits. Labels stored as features and a head therefore need no change for an ensemble.

Axes: B images, S side, D features of all members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from distill_core.config.committee import CommitteeConfig, WeightingConfig
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.seeds import generator, philox_key
from distill_core.storage.digest import sha256


def voters(
    config: CommitteeConfig, count: int, *, seed: int, ipc_index: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the positions of the voters among `count` teachers, and their weights.

    Args:
        config: the number of voters and the rule of their choice.
        count: teachers of the stage.
        seed: the run's seed.
        ipc_index: of the images; all classes of one index have the same voters.

    Source: arXiv:2501.07575 (CV-DD) and its published code: a random pair per index, or all pairs
    in order. Differs from the code: the draw is named by (seed, index).
    """
    every = tuple(combinations(range(count), config.voters or count))
    place = ipc_index % len(every)
    if config.choice == "random":
        rng = generator(philox_key(seed, "recover", "committee"), ipc_index)
        place = int(rng.integers(len(every)))
    return every[place], weights(config.weighting, every[place])


def weights(config: WeightingConfig | None, chosen: Sequence[int]) -> tuple[float, ...]:
    """Return the weights of the chosen teachers, which sum to 1."""
    if config is None:
        return (1 / len(chosen),) * len(chosen)
    scores = np.array([config.priors[teacher] for teacher in chosen]) / config.temperature
    shares = np.exp(scores - scores.max())
    return tuple((shares / shares.sum()).tolist())


class Ensemble(nn.Module):
    """Frozen teachers of the same classes, normalisation and size.

    Args:
        members: two or more, on one device.
        weights: of the members, with sum 1; None: equal weights.

    Source: arXiv:2311.17950 (G-VBSM) and arXiv:2404.13733 (EDC), averaged labels of a pool;
    arXiv:2501.07575 (CV-DD), weighted ones.
    """

    def __init__(
        self, members: Sequence[FrozenTeacher], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        parts = [member.digest for member in members]
        parts += [] if weights is None else [repr(weight) for weight in weights]
        self.digest = sha256("".join(parts).encode())
        features = sum(member.spec.features for member in members)
        self.spec = members[0].spec.model_copy(update={"features": features})
        heads, share = [member.head for member in members], weights or [1.0] * len(members)
        total = sum(share)
        weight = torch.cat([h.weight * s for h, s in zip(heads, share, strict=True)], dim=1) / total
        bias = torch.stack([h.bias * s for h, s in zip(heads, share, strict=True)]).sum(0) / total
        self.head = nn.Linear(features, len(bias), device=weight.device, dtype=weight.dtype)
        self.head.weight, self.head.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, *, pooled: bool = False) -> TeacherOutput:
        """Return features (B, D) and logits (B, C) of normalised images (B, 3, S, S)."""
        features = torch.cat([member(x, pooled=pooled).features for member in self.members], dim=1)
        return TeacherOutput(features, self.head(features), ())


def as_ensemble(
    teachers: Sequence[FrozenTeacher], weighting: WeightingConfig | None = None
) -> FrozenTeacher | Ensemble:
    """Return the ensemble of several teachers, or the only one itself."""
    if len(teachers) == 1:
        return teachers[0]
    shares = None if weighting is None else weights(weighting, range(len(teachers)))
    return Ensemble(teachers, shares)
