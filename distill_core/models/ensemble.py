"""Several teachers that speak as one: the mean of their logits.

Their features stand side by side, and one head maps them to the mean, so what is stored of a
teacher's words (features and a head) serves an ensemble unchanged.

Axes: B images, S side, D features of all members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.storage.digest import sha256


class Ensemble(nn.Module):
    """Frozen teachers of the same classes, normalisation and size.

    Args:
        members: two or more, on one device.

    Source: arXiv:2311.17950 (G-VBSM) and arXiv:2404.13733 (EDC), averaged labels of a pool.
    """

    def __init__(self, members: Sequence[FrozenTeacher]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.digest = sha256("".join(member.digest for member in members).encode())
        features = sum(member.spec.features for member in members)
        self.spec = members[0].spec.model_copy(update={"features": features})
        weight = torch.cat([member.head.weight for member in members], dim=1) / len(members)
        bias = torch.stack([member.head.bias for member in members]).mean(dim=0)
        self.head = nn.Linear(features, len(bias), device=weight.device, dtype=weight.dtype)
        self.head.weight, self.head.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, *, pooled: bool = False) -> TeacherOutput:
        """Describe normalised images (B, 3, S, S): features (B, D), logits (B, C)."""
        features = torch.cat([member(x, pooled=pooled).features for member in self.members], dim=1)
        return TeacherOutput(features, self.head(features), ())


def speak_as_one(teachers: Sequence[FrozenTeacher]) -> FrozenTeacher | Ensemble:
    """Return the teacher itself if there is only one."""
    return teachers[0] if len(teachers) == 1 else Ensemble(teachers)
