"""How good a network is: top-1 and top-5 in percent."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Percent of images whose class is the first, or among the first five."""

    top1: float
    top5: float

    def to_dict(self) -> dict[str, float]:
        """Return a JSON-able tree."""
        return asdict(self)


def count_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many of B images are right at top-1 and at top-5, (2,) int64.

    Args:
        logits: (B, C); with fewer than five classes top-5 counts all of them.
        labels: (B,) int64.
    """
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = top == labels[:, None]
    return torch.stack([hits[:, 0].sum(), hits.any(dim=1).sum()])
