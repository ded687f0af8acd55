"""Loss terms of recover. A method is a choice of terms and weights; a new idea is one function.

Axes: B images, C classes, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

from distill_core.config.recovery import TermName
from distill_core.errors import ConfigError
from distill_core.models.teacher import TeacherOutput

DENSITY_SIDE = 32  # pixels to which images are pooled before they are compared
DENSITY_TEMPERATURE = 4.0


@dataclass(frozen=True, slots=True)
class Forward:
    """All that a term may look at: one view of a batch, and what the teacher says of it."""

    pixels: Tensor  # (B, 3, S, S) normalised
    targets: Tensor  # (B,) int64
    teacher: TeacherOutput
    first_layer_factor: float
    class_moments: tuple[tuple[Tensor, Tensor], ...] = ()  # (mean, var), each (ch,), by layer
    variance_factor: float = 1.0
    start: Tensor | None = None  # (B, 3, S, S): the images before the first step, the same view
    smoothed_logits: Tensor | None = None  # (B, C): of the images' running average, the same view
    temperature: float = 1.0  # of flatness


Term = Callable[[Forward], Tensor]
Objective = Mapping[str, tuple[float, Term]]


def cross_entropy(forward: Forward) -> Tensor:
    """Return the mean cross-entropy between the teacher's logits and the assigned classes."""
    return functional.cross_entropy(forward.teacher.logits, forward.targets)


def bn_statistics(forward: Forward) -> Tensor:
    """Return how far batch statistics are from running ones, summed over batch norm layers.

    Per layer ||running_mean - mean||_2 + ||running_var - var||_2, biased variance, statistics of
    the layer's input over the whole batch; the first layer counts `first_layer_factor` times, the
    variance `variance_factor` times.

    Source: arXiv:2306.13092 (SRe2L), section 3.2, eq. 8; the first factor is from the published
    code, the second from arXiv:2409.17612 (DWA).
    """
    expected = [(s.running_mean, s.running_var) for s in forward.teacher.statistics]
    return _gap(forward, expected)


def class_bn_statistics(forward: Forward) -> Tensor:
    """Return how far batch statistics are from those of the batch's classes, summed over layers.

    As `bn_statistics`, with the mean and variance that real images of the classes have at each
    layer in place of the running ones; those of several classes are averaged. Beside
    `bn_statistics`, weighted alpha and 1 - alpha, it is EDC's soft category-aware matching.

    Source: LPLD (NeurIPS 2024), class-wise supervision, where a batch is of one class. Differs
    from its code: batches of several classes are allowed.
    """
    return _gap(forward, forward.class_moments)


def start_distance(forward: Forward) -> Tensor:
    """Return the mean squared difference between the images and their start, in the same view.

    Source: arXiv:2405.09150 (CUDD) and its published code.
    """
    assert forward.start is not None
    return functional.mse_loss(forward.pixels, forward.start)


def flatness(forward: Forward) -> Tensor:
    """Return KL(images || running average of the images) of the teacher's tempered predictions.

    Source: arXiv:2404.13733 (EDC), flatness regularisation, logit form. Differs from the published
    code, where it is switched off: it follows the paper, averaged over the batch.
    """
    assert forward.smoothed_logits is not None
    here = functional.log_softmax(forward.teacher.logits / forward.temperature, dim=1)
    there = functional.log_softmax(forward.smoothed_logits / forward.temperature, dim=1)
    return functional.kl_div(there, here, reduction="batchmean", log_target=True)


def density(forward: Forward) -> Tensor:
    """Return how unevenly the images of each class fill their span; zero for single images.

    Per class: images pooled to 32 x 32, the eigenvalues l of their Gram matrix, and
    KL(softmax(l) || softmax(l / 4)); averaged over the classes of the batch.

    Source: arXiv:2311.17950 (G-VBSM), data densification. Differs from the published code: the
    eigenvalues are those of a symmetric matrix, and are divided by the pixels of an image, so that
    the softmax does not saturate at any resolution.
    """
    side = min(DENSITY_SIDE, forward.pixels.shape[-1])
    rows = functional.adaptive_avg_pool2d(forward.pixels, side).flatten(1)
    classes = torch.unique(forward.targets).tolist()
    return torch.stack([_unevenness(rows[forward.targets == c]) for c in classes]).mean()


def _unevenness(rows: Tensor) -> Tensor:
    if len(rows) < 2:
        return rows.sum() * 0.0
    spectrum = torch.linalg.eigvalsh(rows @ rows.T / rows.shape[1])
    sharp = functional.log_softmax(spectrum, dim=0)
    soft = functional.log_softmax(spectrum / DENSITY_TEMPERATURE, dim=0)
    return (sharp.exp() * (sharp - soft)).sum()


def _gap(forward: Forward, expected: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    gaps = [
        vector_norm(mean - s.mean) + forward.variance_factor * vector_norm(var - s.var)
        for s, (mean, var) in zip(forward.teacher.statistics, expected, strict=True)
    ]
    gaps[0] = gaps[0] * forward.first_layer_factor
    return torch.stack(gaps).sum()


TERMS: Mapping[str, Term] = {
    t.__name__: t
    for t in (
        cross_entropy,
        bn_statistics,
        class_bn_statistics,
        start_distance,
        flatness,
        density,
    )
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
