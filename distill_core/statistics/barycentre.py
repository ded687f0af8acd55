"""The barycentre of a class in feature space: a few points that represent its images.

Axes: n images of a class, k points, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROUNDS = 100  # at most; assignments settle long before


def barycentre(features: Tensor, points: int, rng: np.random.Generator) -> Tensor:
    """Return the k points nearest to a class's features in the 2-Wasserstein sense.

    With free points and free weights, the best k-point measure is the k-means solution, weighted
    by the shares of its clusters; Lloyd's iterations find it, from a k-means++ start.

    Args:
        features: (n, D).
        points: k; where n < k, images are used again.
        rng: draws the start.

    Returns:
        (k, D) float64, the point of the largest share first.

    Source: arXiv:2311.18531 (WMDD), section 3.2, algorithm 1. Differs from the published code: it
    alternates mirror descent on the weights with transport plans from a normal start, damped and
    for ten rounds, and never reaches the optimum that is computed here; weights are not kept.
    """
    rows = features.double()
    if len(rows) <= points:
        return rows[torch.arange(points) % len(rows)]
    centres, nearest = _spread_start(rows, points, rng), None
    for _ in range(ROUNDS):
        assigned = _squares(rows, centres).argmin(dim=1)
        if nearest is not None and torch.equal(assigned, nearest):
            break
        nearest = assigned
        centres = _means(rows, nearest, centres)
    shares = torch.bincount(_squares(rows, centres).argmin(dim=1), minlength=points)
    return centres[torch.argsort(shares, descending=True, stable=True)]


def _spread_start(rows: Tensor, points: int, rng: np.random.Generator) -> Tensor:
    """Draw points among the rows, each far from those before (k-means++)."""
    chosen = [int(rng.integers(len(rows)))]
    for _ in range(points - 1):
        total = _squares(rows, rows[chosen]).amin(dim=1).cumsum(0)
        chosen.append(int(torch.searchsorted(total, rng.random() * float(total[-1]), right=True)))
        chosen[-1] = min(chosen[-1], len(rows) - 1)
    return rows[chosen].clone()


def _means(rows: Tensor, nearest: Tensor, centres: Tensor) -> Tensor:
    """Return the mean of each cluster; an empty one keeps its centre."""
    members = torch.nn.functional.one_hot(nearest, len(centres)).to(rows)
    sizes = members.sum(dim=0).unsqueeze(1)
    return torch.where(sizes > 0, members.T @ rows / sizes.clamp(min=1), centres)


def _squares(rows: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances, (n, k), never negative."""
    both = rows.square().sum(1, keepdim=True) + centres.square().sum(1)
    return (both - 2 * rows @ centres.T).clamp(min=0)
