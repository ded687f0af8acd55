"""Several teachers that speak as one: the mean of their logits, weighted or not.

Their features stand side by side, and one head maps them to the mean, so what is stored of a
teacher's words (features and a head) serves an ensemble unchanged.

Axes: B images, S side, D features of all members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill_core.config.committee import WeightingConfig
from distill_core.models.committee import weights
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.storage.digest import sha256


class Ensemble(nn.Module):
    """Frozen teachers of the same classes, normalisation and size.

    Args:
        members: two or more, on one device.
        weights: how much each counts, adding up to 1; None: all the same.

    Source: arXiv:2311.17950 (G-VBSM) and arXiv:2404.13733 (EDC), averaged labels of a pool;
    arXiv:2501.07575 (CV-DD), weighted ones.
    """

    def __init__(
        self, members: Sequence[FrozenTeacher], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        words = [member.digest for member in members]
        words += [] if weights is None else [repr(weight) for weight in weights]
        self.digest = sha256("".join(words).encode())
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
        """Describe normalised images (B, 3, S, S): features (B, D), logits (B, C)."""
        features = torch.cat([member(x, pooled=pooled).features for member in self.members], dim=1)
        return TeacherOutput(features, self.head(features), ())


def as_ensemble(
    teachers: Sequence[FrozenTeacher], weighting: WeightingConfig | None = None
) -> FrozenTeacher | Ensemble:
    """Return the teacher itself if there is only one."""
    if len(teachers) == 1:
        return teachers[0]
    shares = None if weighting is None else weights(weighting, range(len(teachers)))
    return Ensemble(teachers, shares)
