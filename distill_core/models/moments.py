"""Mean and variance of activations, by channel or patch, with gradients written by hand.

The kernels of batch norm read and write activations as they are and compute in float32 (float64
for float64 input): a float32 copy of a large activation would cost more than everything computed
from it. A compiler calls the same kernel for the moments and fuses the affine maps itself.

On a CPU the numbers of a group are independent of how many other groups there are, to the last bit.

Axes: B images in G equal groups of neighbours, ch channels, H x W positions, P patches.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.compiler import is_compiling
from torch.nn.functional import batch_norm, interpolate

MeanVar = tuple[Tensor, Tensor]  # mean, biased variance
PATCH_SIDE = 16  # default number of activations per side of a patch
SUMMED = 2048  # numbers that a CPU sums sequentially, if the rows can be divided so


def mean_and_variance(x: Tensor, groups: int) -> MeanVar:
    """Return mean and biased variance of every channel over (B / G, H, W), (G, ch) each.

    float32 (float64 for float64 input). The variance stays exact where the mean is large. On a CPU
    the numbers of a group do not depend on how many others there are, to the last bit.
    """
    measure = _of_columns if x.device.type == "cpu" else _of
    parts = [measure(group) for group in torch.unflatten(x, 0, (groups, -1)).unbind()]
    mean, var = (m[0][None] if groups == 1 else torch.stack(m) for m in zip(*parts, strict=True))
    return mean, var


def affine(x: Tensor, scale: Tensor, offset: Tensor, *, shift: Tensor | None = None) -> Tensor:
    """Return (x - shift) * scale + offset by channel, like `x`; the others are (ch,).

    Rounded like batch norm: a CPU subtracts `shift * scale` from `offset` first.
    """
    if shift is None:
        shift = torch.zeros_like(scale)
    return batch_norm(x, shift, torch.ones_like(scale), scale, offset, eps=0.0)


def line_of_moments(
    mean: Tensor, grad_mean: Tensor, grad_var: Tensor, *, count: int
) -> tuple[Tensor, Tensor]:
    """Return slope and offset of the gradient of moments over `count` numbers, which is affine."""
    # d mean / dx = 1/n and d var / dx = 2 (x - mean)/n.
    slope = grad_var * (2 / count)
    return slope, torch.addcmul(grad_mean / count, slope, mean, value=-1)


def gradient_of_moments(x: Tensor, mean: Tensor, grad_mean: Tensor, grad_var: Tensor) -> Tensor:
    """Return the gradient in `x` of its moments, (B, ch, H, W); the others are (G, ch).

    Input narrower than float32 keeps its dtype, except under a compiler, where it is widened.
    """
    groups = len(mean)
    slope, offset = line_of_moments(mean, grad_mean, grad_var, count=x.numel() // mean.numel())
    grouped = torch.unflatten(x, 0, (groups, -1))
    if x.dtype != mean.dtype and not is_compiling():
        parts = [affine(*part) for part in zip(grouped.unbind(), slope, offset, strict=True)]
        return parts[0] if groups == 1 else torch.cat(parts)
    slope, offset = (values[:, None, :, None, None] for values in (slope, offset))
    return torch.addcmul(offset, grouped.to(mean.dtype), slope).flatten(0, 1)


def _of(x: Tensor) -> MeanVar:
    """Return mean and biased variance of (B, ch, H, W), (ch,) each."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    unused = torch.empty(2, x.shape[1], dtype=dtype, device=x.device)  # only its dtype matters
    kernel: Any = torch.ops.aten.batch_norm_update_stats
    mean, var = kernel(x, *unused, 1.0)
    return mean, var


def _of_columns(x: Tensor) -> MeanVar:
    """Return the same on a CPU, combined from the moments at each position of a few rows.

    The kernel sums sequentially: over all positions, its relative error of a variance is 1e-5 to
    1e-4, over `SUMMED` numbers about 1e-6.
    """
    batch, channels, height, width = x.shape
    rows = next(
        (n for n in range(1, height) if not height % n and batch * height <= n * SUMMED), height
    )
    flat = x.permute(0, 2, 3, 1).reshape(batch, height // rows, 1, rows * width * channels)
    means, variances = (part.view(-1, channels) for part in _of(flat.permute(0, 3, 1, 2)))
    between, mean = torch.var_mean(means, 0, correction=0)
    return mean, variances.mean(0) + between


def channel_moments(x: Tensor, groups: int = 1) -> MeanVar:
    """Return mean and biased variance of every channel over (B / G, H, W), (G, ch) each."""
    mean, var = _ChannelMoments.apply(x, groups)
    return mean, var


def patch_moments(x: Tensor, groups: int = 1, *, side: int = PATCH_SIDE) -> MeanVar:
    """Return mean and biased variance of every patch over (B / G, ch, side, side), (G, P) each.

    Patches are ordered row by row. Maps whose sides are not multiples of `side` are first resized
    to the next multiple, bilinearly.

    Source: the published code of arXiv:2311.17950 (G-VBSM).
    """
    if max(x.shape[-2:]) <= side // 2:
        mean, var = _Enlarged.apply(x, groups, side)
        return mean, var
    rows, columns = (-(-length // side) for length in x.shape[-2:])
    size = (rows * side, columns * side)
    if size != tuple(x.shape[-2:]):
        x = interpolate(widened(x), size=size, mode="bilinear", align_corners=False)
    cut = x.view(groups, -1, x.shape[1], rows, side, columns, side)
    return moments(cut, (1, 2, 4, 6))


def moments(x: Tensor, dims: tuple[int, ...]) -> MeanVar:
    """Return mean and biased variance of `x` over some axes, (G, rest) each; differentiable once.

    Computed in float32 for narrower input, in two passes, so that the variance stays exact where
    the mean is large.

    Args:
        x: (G, ...).
        dims: the axes, without the first.
    """
    mean, var = _Moments.apply(x, dims)
    return mean.flatten(1), var.flatten(1)


def widened(x: Tensor) -> Tensor:
    """Return narrow floats as float32."""
    return x if x.dtype == torch.float64 else x.float()


class _ChannelMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        mean, var = mean_and_variance(x, groups)
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient_of_moments(x, mean, grad_mean, grad_var).to(x.dtype), None


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        wide = widened(x)
        mean = wide.mean(dims, keepdim=True)
        var = (wide - mean).square_().mean(dims, keepdim=True)
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors  # type: ignore[attr-defined]
        count = x.numel() // mean.numel()
        slope, offset = line_of_moments(mean, grad_mean, grad_var, count=count)
        return torch.addcmul(offset, x.to(mean.dtype), slope).to(x.dtype), None


class _Enlarged(torch.autograd.Function):
    """Moments of small maps resized to one patch, without computing the resized map.

    With R the (side^2, H W) matrix that resizes a map and d the map minus its mean, the sum of
    squares of R d is d . (R^T R d), which needs H W numbers instead of side^2.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, groups: int, side: int) -> tuple[Tensor, Tensor]:
        _, channels, height, width = x.shape
        flat = widened(x).permute(0, 2, 3, 1).reshape(groups, -1, height * width, channels)
        weights, gram = _enlarging(height, width, side, flat.dtype, flat.device)
        mean = (flat.mean((1, 3)) * weights).sum(1)
        d = (flat - mean.view(-1, 1, 1, 1)).flatten(0, 1)
        spread = torch.bmm(gram.expand(len(d), -1, -1), d)
        var = (spread * d).view(groups, -1).sum(1) / (len(d) // groups * channels)
        ctx.save_for_backward(spread, weights)
        ctx.shape, ctx.dtype = x.shape, x.dtype  # type: ignore[attr-defined]
        return mean.unsqueeze(1), var.unsqueeze(1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_mean: Tensor, grad_var: Tensor
    ) -> tuple[Tensor, None, None]:
        spread, weights = ctx.saved_tensors  # type: ignore[attr-defined]
        (batch, channels, height, width), groups = ctx.shape, len(grad_mean)  # type: ignore[attr-defined]
        n = batch // groups * channels
        offset = (grad_mean / n).view(groups, 1, 1, 1) * weights.view(1, 1, -1, 1)
        slope = (2 * grad_var / n).view(groups, 1, 1, 1)
        grad = torch.addcmul(offset, spread.view(groups, -1, *spread.shape[1:]), slope)
        back = grad.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return back.to(ctx.dtype), None, None  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _enlarging(
    height: int, width: int, side: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the column means of R, (H W,), and R^T R / side^2, (H W, H W)."""

    def along(length: int) -> Tensor:
        unit = torch.eye(length, dtype=torch.float64)[None]
        grown = interpolate(unit, size=side, mode="linear", align_corners=False)[0].T
        return grown.clone(memory_format=torch.contiguous_format)

    both = torch.kron(along(height), along(width))
    gram = both.T @ both / len(both)
    return both.mean(0).to(device, dtype), gram.to(device, dtype)
