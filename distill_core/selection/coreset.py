"""Coresets: real images that represent their class, chosen one after another by their features.

The first k of a longer choice are the choice of k, so more images per class extend a set.

Axes: n images of a class, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from distill_core.models.teacher import FrozenTeacher
from distill_core.selection.class_images import normalised


@torch.no_grad()
def features_of(parts: Iterable[np.ndarray], teacher: FrozenTeacher) -> np.ndarray:
    """Return the teacher's features of images, (n, D) float64.

    Args:
        parts: up to FORWARD_BATCH images each, (b, 3, S, S) uint8, in order.
        teacher: frozen.
    """
    outputs = [teacher(normalised(teacher, part)) for part in parts]
    return np.concatenate([output.features.double().cpu().numpy() for output in outputs])


def herding(features: np.ndarray, count: int) -> np.ndarray:
    """Return the images whose running mean stays closest to the mean of all, (count,) int64.

    Args:
        features: (n, D).
        count: how many, at most n; none comes twice.

    Source: Welling, "Herding dynamical weights to learn" (ICML 2009), in the form of
    arXiv:1611.07725 (iCaRL), algorithm 4; a baseline since arXiv:2006.05929 (DC). Differs from
    iCaRL: features are not normalised, as in DC.
    """
    mean, total = features.mean(axis=0), np.zeros(features.shape[1])
    free, chosen = np.ones(len(features), bool), []
    for turn in range(min(count, len(features))):
        target = (turn + 1) * mean - total
        chosen.append(_first(np.square(features - target).sum(axis=1), free))
        total += features[chosen[-1]]
    return np.array(chosen, np.int64)


def k_center(features: np.ndarray, count: int) -> np.ndarray:
    """Return images such that none is far from all of them, greedily, (count,) int64.

    The first is the one closest to the mean, each further one the farthest from those before.

    Args:
        features: (n, D).
        count: how many, at most n; none comes twice.

    Source: arXiv:1708.00489, algorithm 1; a baseline since arXiv:2006.05929 (DC), whose code has
    the same first image.
    """
    away = np.square(features - features.mean(axis=0)).sum(axis=1)
    free, chosen = np.ones(len(features), bool), [int(away.argmin())]
    free[chosen[0]] = False
    away = np.square(features - features[chosen[0]]).sum(axis=1)
    for _ in range(min(count, len(features)) - 1):
        chosen.append(_first(-away, free))
        away = np.minimum(away, np.square(features - features[chosen[-1]]).sum(axis=1))
    return np.array(chosen, np.int64)


SELECTIONS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    f.__name__: f for f in (herding, k_center)
}


def _first(cost: np.ndarray, free: np.ndarray) -> int:
    """Return the free image of least cost, the first of several, and mark it as taken."""
    best = int(np.where(free, cost, np.inf).argmin())
    free[best] = False
    return best
