"""Batch norm layers of a frozen network that also measure their input.

The statistics terms compare the mean and the variance of every batch norm's input with the running
ones. Measuring them together with the normalised output costs one more pass over the input, and one
more term in a gradient that is written by hand.

Axes: B images in G groups of neighbours, ch channels, H x W positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import batch_norm

from distill_core.models.measuring import by_group, replace_modules
from distill_core.models.moments import affine, gradient_of_moments, mean_and_variance


@dataclass(frozen=True)
class LayerStatistics:
    """Measured and running statistics of one batch norm layer, (ch,), float32 or float64."""

    mean: Tensor  # of the layer's input over (B, H, W)
    var: Tensor  # biased
    running_mean: Tensor
    running_var: Tensor


@dataclass
class StatisticsTape:
    """The statistics that the layers of one network measure in a forward pass, by number."""

    sizes: Sequence[int] = ()  # of the groups that are measured; (): nothing is recorded
    pooling: bool = False  # normalise with batch statistics, as in training
    recorded: dict[int, tuple[LayerStatistics, ...]] = field(default_factory=dict)  # one per group

    @contextmanager
    def pool(self) -> Iterator[None]:
        """Let the layers normalise with batch statistics during a `with` block."""
        self.pooling = True
        try:
            yield
        finally:
            self.pooling = False

    @contextmanager
    def record(self, sizes: Sequence[int]) -> Iterator[None]:
        """Let the layers record the statistics of each group during a `with` block."""
        self.recorded.clear()
        self.sizes = sizes
        try:
            yield
        finally:
            self.sizes = ()

    def take(self) -> tuple[tuple[LayerStatistics, ...], ...]:
        """Return and clear the statistics, by group and layer in registration order."""
        layers = [self.recorded[number] for number in sorted(self.recorded)]
        self.recorded.clear()
        return tuple(zip(*layers, strict=True))


class StatisticsBatchNorm(nn.Module):
    """Replacement of a `BatchNorm2d` of a frozen network.

    It normalises with the running statistics, or with those of the batch while its tape pools;
    neither changes them. While its tape records, it also records the mean and the biased variance
    of its input, by group of images, in float32 (float64 for float64 input).

    Source: arXiv:2306.13092, section 3.2 (the regulariser of recover), where a hook measures them.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor
    bias: Tensor
    scale: Tensor

    def __init__(self, norm: nn.BatchNorm2d, number: int, *, tape: StatisticsTape) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        ones = torch.ones_like(norm.running_var)
        self.number, self.tape, self.eps = number, tape, norm.eps
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.register_buffer("weight", norm.weight.detach() if norm.affine else ones)
        self.register_buffer("bias", norm.bias.detach() if norm.affine else torch.zeros_like(ones))
        scale = self.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (B, ch, H, W) in the dtype and memory format of `x`."""
        if self.tape.pooling:
            return batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        if not self.tape.sizes:
            return batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        y, mean, var = by_group(self._measure, x, self.tape.sizes)
        self.tape.recorded[self.number] = tuple(
            LayerStatistics(*of_group, self.running_mean, self.running_var)
            for of_group in zip(mean.unbind(), var.unbind(), strict=True)
        )
        return y

    def _measure(self, x: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        return normalise_and_measure(x, self.running_mean, self.scale, self.bias, groups=groups)


def normalise_and_measure(
    x: Tensor, running_mean: Tensor, scale: Tensor, bias: Tensor, *, groups: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (x - running_mean) * scale + bias, and mean and biased variance of `x` by group.

    On a CPU the numbers of a group do not depend on how many others there are, to the last bit.

    Args:
        x: (B, ch, H, W), any floating dtype and memory format.
        running_mean: (ch,).
        scale: (ch,).
        bias: (ch,).
        groups: G, divides B.

    Returns:
        (B, ch, H, W) like `x`, and two (G, ch), float32 or float64; all differentiable
        in `x` alone, once.
    """
    y, mean, var = _NormaliseAndMeasure.apply(x, running_mean, scale, bias, groups)
    return y, mean, var


class _NormaliseAndMeasure(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, running_mean: Tensor, scale: Tensor, bias: Tensor, groups: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = mean_and_variance(x, groups)
        y = affine(x, scale, bias, shift=running_mean)
        ctx.save_for_backward(x, mean, scale)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_y: Tensor, grad_mean: Tensor, grad_var: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        x, mean, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_x = gradient_of_moments(x, mean, grad_mean, grad_var)
        if grad_x.dtype == scale.dtype:
            grad_x.addcmul_(grad_y, _channels(scale))
        else:
            grad_x.add_(affine(grad_y, scale, torch.zeros_like(scale)))
        return grad_x.to(x.dtype), None, None, None, None


def _channels(values: Tensor) -> Tensor:
    """Return (ch,) as (1, ch, 1, 1)."""
    return values.view(1, -1, 1, 1)


def measure_batch_norms(model: nn.Module) -> tuple[StatisticsTape, int]:
    """Replace every `BatchNorm2d` of a frozen network, in place.

    Returns:
        The tape they share, and how many were replaced; numbers follow registration order.
    """
    tape = StatisticsTape()
    make = partial(StatisticsBatchNorm, tape=tape)
    return tape, replace_modules(model, nn.BatchNorm2d, make)
