"""Labels of which only the largest logits are kept; a method, not a codec, because it loses much.

The values of the other classes are chosen when labels are read, so one file serves every choice.

Axes: B labels, k kept logits, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill_core.config.students import Rest


@dataclass(frozen=True)
class Top:
    """The largest logits of B labels."""

    values: Tensor  # (B, k) float, largest first; the first k' of them are a smaller k
    ids: Tensor  # (B, k) int64, their classes
    rest: Tensor  # (B,) float, the mean of the others; 0 where none are left


def keep_top(logits: Tensor, k: int) -> Top:
    """Return the k largest of (B, C) logits and the mean of the others.

    Source: arXiv:2604.18135 (LPQLD), logits before the softmax, so that temperatures may change.
    Differs from the published code: the mean of the other logits is kept as well.
    """
    values, ids = logits.topk(k, dim=1)
    others = logits.double().sum(1) - values.double().sum(1)
    return Top(values, ids, (others / max(logits.shape[1] - k, 1)).to(logits.dtype))


def restore(top: Top, *, classes: int, rest: Rest) -> Tensor:
    """Return (B, C) logits.

    Args:
        top: the kept logits.
        classes: C.
        rest: `none`: the other classes have probability 0 and the softmax is over the kept ones
            (MR-k of LPQLD); `mean`: each of them has the mean of their logits.
    """
    shape = (len(top.values), classes)
    filler = torch.full_like(top.rest, -torch.inf) if rest == "none" else top.rest
    return filler[:, None].expand(shape).scatter(1, top.ids, top.values)
