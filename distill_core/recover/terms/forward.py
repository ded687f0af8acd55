"""The input of a loss term."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.models.teacher import TeacherOutput

Layers = tuple[tuple[Tensor, Tensor], ...]  # (mean, var), each (ch,) or (P,), by layer


@dataclass(frozen=True, slots=True)
class Forward:
    """One view of a batch, the teacher's output on it, and what terms compare it with.

    Axes: B images, or tiles of images, S x S pixels, C classes, ch channels, P patches, D features.
    """

    pixels: Tensor  # (B, 3, S, S) normalised
    targets: Tensor  # (B,) int64
    teacher: TeacherOutput
    config: RecoverConfig
    moments: Mapping[str, Layers] = field(default_factory=dict)  # of real images, by term
    features: Mapping[str, Tensor] = field(default_factory=dict)  # of real images, (B, D), by term
    start: Tensor | None = None  # (B, 3, S, S): the images before the first step, the same view
    smoothed_logits: Tensor | None = None  # (B, C): of the images' running average, the same view
    student_logits: Tensor | None = None  # (B, C): of the student of the rounds before


Term = Callable[[Forward], Tensor]  # -> scalar, differentiable in the pixels
