"""Loss terms of recover. A method is a choice of terms and weights; a new idea is one function.

Axes: B images, C classes, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

from distill_core.config.schema import TermName
from distill_core.errors import ConfigError
from distill_core.models.teacher import TeacherOutput


@dataclass(frozen=True, slots=True)
class Forward:
    """All that a term may look at: one view of a batch, and what the teacher says of it."""

    pixels: Tensor  # (B, 3, S, S) normalised
    targets: Tensor  # (B,) int64
    teacher: TeacherOutput
    first_layer_factor: float
    class_moments: tuple[tuple[Tensor, Tensor], ...] = ()  # (mean, var), each (ch,), by layer


Term = Callable[[Forward], Tensor]
Objective = Mapping[str, tuple[float, Term]]


def cross_entropy(forward: Forward) -> Tensor:
    """Return the mean cross-entropy between the teacher's logits and the assigned classes."""
    return functional.cross_entropy(forward.teacher.logits, forward.targets)


def bn_statistics(forward: Forward) -> Tensor:
    """Return how far batch statistics are from running ones, summed over batch norm layers.

    Per layer ||running_mean - mean||_2 + ||running_var - var||_2, biased variance, statistics of
    the layer's input over the whole batch; the first layer counts `first_layer_factor` times.

    Source: arXiv:2306.13092 (SRe2L), section 3.2, eq. 8; the factor is from the published code.
    """
    gaps = [
        vector_norm(s.running_mean - s.mean) + vector_norm(s.running_var - s.var)
        for s in forward.teacher.statistics
    ]
    gaps[0] = gaps[0] * forward.first_layer_factor
    return torch.stack(gaps).sum()


def class_bn_statistics(forward: Forward) -> Tensor:
    """Return how far batch statistics are from those of the batch's classes, summed over layers.

    As `bn_statistics`, with the mean and variance that real images of the classes have at each
    layer in place of the running ones; those of several classes are averaged.

    Source: LPLD (NeurIPS 2024), class-wise supervision, where a batch is of one class. Differs
    from its code: batches of several classes are allowed.
    """
    gaps = [
        vector_norm(mean - s.mean) + vector_norm(var - s.var)
        for s, (mean, var) in zip(forward.teacher.statistics, forward.class_moments, strict=True)
    ]
    gaps[0] = gaps[0] * forward.first_layer_factor
    return torch.stack(gaps).sum()


TERMS: Mapping[str, Term] = {
    t.__name__: t for t in (cross_entropy, bn_statistics, class_bn_statistics)
}
NEEDS_STATISTICS = frozenset({"bn_statistics", "class_bn_statistics"})


def build_objective(weights: Mapping[TermName, float] | Mapping[str, float]) -> Objective:
    """Look up each named term; a zero weight drops the term instead of computing it.

    Raises:
        ConfigError: no such term.
    """
    if unknown := sorted(weights.keys() - TERMS.keys()):
        raise ConfigError(
            f"recover.terms: unknown term {unknown[0]!r}. Known terms: {', '.join(sorted(TERMS))}."
        )
    return {name: (weight, TERMS[name]) for name, weight in weights.items() if weight}
