"""Whether networks recognise images: hits and the probability of each image's own class.

Distilled images are judged by networks that took no part in their making, where there are no
students or no real images to test them on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from distill_core.config.fields import Triple
from distill_core.evaluation.accuracy import Hits
from distill_core.evaluation.metrics import is_hit, logits_of


@dataclass(frozen=True)
class Recognition:
    """How well a network recognises some images."""

    hits: Hits
    probability: float  # of the image's own class, mean over the images; 0 without images


def recognise(
    model: nn.Module, pixels: np.ndarray, labels: np.ndarray, *, mean: Triple, std: Triple
) -> Recognition:
    """Return how well a network recognises unaugmented images.

    Args:
        model: maps normalised (B, 3, S, S) to logits (B, C), on the CPU.
        pixels: (n, 3, S, S) uint8.
        labels: (n,) int64.
        mean: per channel, of pixels in [0, 1], as the network was trained.
        std: likewise.
    """
    count, top1, top5, sure = len(labels), 0, 0, 0.0
    for start, logits in logits_of(model, pixels, mean=mean, std=std, device="cpu"):
        own = torch.from_numpy(labels[start : start + len(logits)])
        right = is_hit(logits, own).sum(dim=0)
        top1, top5 = top1 + int(right[0]), top5 + int(right[1])
        sure += float(logits.softmax(dim=1).gather(1, own[:, None]).sum())
    return Recognition(Hits(count, top1, top5), sure / max(count, 1))
