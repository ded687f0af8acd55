"""Moments and affine maps by channel, with the kernels that batch norm is made of.

Written out, a float32 copy of a large activation costs more than all that is done with it. These
kernels read and write activations as they are and compute in float32 (float64 for float64). A
compiler calls the kernel of the moments, too, and fuses the maps by itself.

Axes: B images in G equal groups of neighbours, ch channels, H x W positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import batch_norm

MeanVar = tuple[Tensor, Tensor]  # mean, biased variance
SUMMED = 2048  # numbers that a CPU adds up one after another, if rows can be cut so


def mean_and_variance(x: Tensor, groups: int) -> MeanVar:
    """Return mean and biased variance of every channel over (B / G, H, W), (G, ch) each.

    float32 (float64 for float64 input). The variance stays exact where the mean is large. On a CPU
    the numbers of a group do not depend on how many others there are, to the last bit.
    """
    measure = _of_columns if x.device.type == "cpu" else _of
    found = [measure(group) for group in torch.unflatten(x, 0, (groups, -1)).unbind()]
    mean, var = (of[0][None] if groups == 1 else torch.stack(of) for of in zip(*found, strict=True))
    return mean, var


def affine(x: Tensor, scale: Tensor, offset: Tensor, *, shift: Tensor | None = None) -> Tensor:
    """Return (x - shift) * scale + offset by channel, like `x`; the others are (ch,).

    Rounded as batch norm is: a CPU takes `shift * scale` from `offset` beforehand.
    """
    if shift is None:
        shift = torch.zeros_like(scale)
    return batch_norm(x, shift, torch.ones_like(scale), scale, offset, eps=0.0)


def line_of_moments(
    mean: Tensor, grad_mean: Tensor, grad_var: Tensor, *, count: int
) -> tuple[Tensor, Tensor]:
    """Return slope and offset of the gradient of moments over `count` numbers, an affine map."""
    # d mean / dx = 1/n and d var / dx = 2 (x - mean)/n.
    slope = grad_var * (2 / count)
    return slope, torch.addcmul(grad_mean / count, slope, mean, value=-1)


def gradient_of_moments(x: Tensor, mean: Tensor, grad_mean: Tensor, grad_var: Tensor) -> Tensor:
    """Return the gradient in `x` of its moments, (B, ch, H, W); the others are (G, ch).

    What is narrower than float32 stays so; under a compiler, which this serves too, it is widened.
    """
    groups = len(mean)
    slope, offset = line_of_moments(mean, grad_mean, grad_var, count=x.numel() // mean.numel())
    grouped = torch.unflatten(x, 0, (groups, -1))
    if x.dtype != mean.dtype and not is_compiling():
        parts = [affine(*one) for one in zip(grouped.unbind(), slope, offset, strict=True)]
        return parts[0] if groups == 1 else torch.cat(parts)
    slope, offset = (values[:, None, :, None, None] for values in (slope, offset))
    return torch.addcmul(offset, grouped.to(mean.dtype), slope).flatten(0, 1)


def _of(x: Tensor) -> MeanVar:
    """Return mean and biased variance of (B, ch, H, W), (ch,) each."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    unused = torch.empty(2, x.shape[1], dtype=dtype, device=x.device)  # of the type of the result
    kernel: Any = torch.ops.aten.batch_norm_update_stats
    mean, var = kernel(x, *unused, 1.0)
    return mean, var


def _of_columns(x: Tensor) -> MeanVar:
    """Return the same for a CPU, from moments of the numbers at each place of a few rows.

    The kernel adds numbers up one after another: over all positions that leaves 1e-5 to 1e-4 of a
    variance, over `SUMMED` about 1e-6.
    """
    batch, channels, height, width = x.shape
    rows = next(
        (n for n in range(1, height) if not height % n and batch * height <= n * SUMMED), height
    )
    flat = x.permute(0, 2, 3, 1).reshape(batch, height // rows, 1, rows * width * channels)
    means, variances = (part.view(-1, channels) for part in _of(flat.permute(0, 3, 1, 2)))
    between, mean = torch.var_mean(means, 0, correction=0)
    return mean, variances.mean(0) + between
