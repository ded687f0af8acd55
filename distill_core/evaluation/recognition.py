"""Whether networks recognise images: hits and the probability of each image's own class.

Distilled images are judged by networks that took no part in their making, where there are no
students or no real images to test them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from distill_core.config.fields import Triple
from distill_core.config.training import ModelConfig
from distill_core.evaluation.accuracy import Hits
from distill_core.evaluation.metrics import is_hit, logits_of
from distill_core.models.importing import import_model

# Networks trained on ImageNet-1K, whose weights are files of installed packages, by name.
PUBLISHED: Mapping[str, str] = {
    "efficientnet_lite0": "package:efficientnet-lite0",
    "efficientnet_lite1": "package:efficientnet-lite1",
    "efficientnet_lite2": "package:efficientnet-lite2",
}
HALF = (0.5, 0.5, 0.5)  # mean and std with which they were trained


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


def recognise_published(
    pixels: np.ndarray, labels: np.ndarray, *, num_classes: int
) -> dict[str, Recognition]:
    """Return how well every network of `PUBLISHED` recognises images of ImageNet-1K's classes.

    Args:
        pixels: (n, 3, S, S) uint8.
        labels: (n,) int64.
        num_classes: 1,000.

    Raises:
        ConfigError: the package of a network is not installed.
    """
    found: dict[str, Recognition] = {}
    for name, address in PUBLISHED.items():
        config = ModelConfig.model_validate({"name": name})
        model = import_model(address, config, num_classes=num_classes)
        found[name] = recognise(model, pixels, labels, mean=HALF, std=HALF)
    return found
