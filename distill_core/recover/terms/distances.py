"""Euclidean distances of many vectors at once: few operations, whatever the number of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def distances(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """Return ||actual_l - expected_l||_2 of every layer l, (L,).

    Args:
        actual: (ch_l,) by layer, at least one; the result is differentiable in them, once, with
            gradient 0 at distance 0.
        expected: (ch_l,) by layer.
    """
    lengths: Tensor = _Distances.apply(len(actual), *actual, *expected)
    return lengths


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, count: int, *both: Tensor) -> Tensor:
        gaps = torch._foreach_sub(both[:count], both[count:])
        lengths = torch.stack(torch._foreach_norm(gaps))
        ctx.save_for_backward(lengths, *gaps)
        return lengths

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        lengths, *gaps = ctx.saved_tensors  # type: ignore[attr-defined]
        slopes = torch.where(lengths > 0, grad / lengths, 0.0)
        grads = torch._foreach_mul(gaps, slopes.unbind())
        return None, *grads, *(None,) * len(gaps)
