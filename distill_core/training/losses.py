"""The losses of students. Axes: B images, C classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from distill_core.config.students import TemperatureConfig


def kl_soft_labels(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    squared: bool,
    smoothing: float = 0.0,
    student_temperature: float | None = None,
) -> Tensor:
    """Return KL(teacher || student) at temperature T, averaged over the batch.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits.
        temperature: T > 0, of both, or of the teacher alone.
        squared: multiply by T^2, which keeps gradients comparable across temperatures.
        smoothing: share of a uniform vector mixed into the raw teacher logits. The published 21K
            code calls this label smoothing; it acts like a higher temperature.
        student_temperature: of the student, if it differs (calibrated alignment of LPQLD).

    Source: arXiv:2306.13092 (SRe2L), section 3.3; FKD, arXiv:2112.01528.
    """
    if smoothing:
        teacher = (1 - smoothing) * teacher + smoothing / teacher.shape[1]
    loss = kl_div(
        log_softmax(student / (student_temperature or temperature), dim=1),
        softmax(teacher / temperature, dim=1),
        reduction="batchmean",
    )
    return loss * temperature**2 if squared else loss


def temperature_at(
    start: float, decay: TemperatureConfig | None, epoch: int, *, epochs: int
) -> float:
    """Return the teacher's temperature in an epoch, counted from 0, out of `epochs`.

    Source: arXiv:2604.18135 (LPQLD), dynamic knowledge reuse, both rules of the published code.
    """
    if decay is None:
        return start
    if decay.factor is None or decay.every is None:
        return decay.floor + (start - decay.floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2
    temperature: float = start * decay.factor ** (epoch // decay.every)
    return max(temperature, decay.floor)


def best_temperature(student: Tensor, target: Tensor) -> float:
    """Return the student's temperature from 0.01 to 1 under which it is closest to the target.

    Args:
        student: (B, C) logits.
        target: (B, C) probabilities.

    Source: arXiv:2604.18135 (LPQLD), calibrated alignment; the grid of the published code.
    """
    grid = [step / 100 for step in range(1, 101)]
    gaps = [kl_div(log_softmax(student / t, dim=1), target, reduction="batchmean") for t in grid]
    return grid[int(torch.stack(gaps).argmin())]


def mixed_cross_entropy(
    student: Tensor, labels: Tensor, partners: Tensor, share: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Return cross-entropy with hard labels, mixed like the pixels.

    Args:
        student: (B, C) logits.
        labels: (B,) classes of the images.
        partners: (B,) classes of the images that are mixed in.
        share: (B,) share of the image itself, in [0, 1].
        smoothing: label smoothing, the share of probability spread over all classes.
    """
    own, other = (
        cross_entropy(student, classes, reduction="none", label_smoothing=smoothing)
        for classes in (labels, partners)
    )
    return torch.mean(share * own + (1 - share) * other)
