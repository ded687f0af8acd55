"""Moments and affine maps by channel, with the kernels that batch norm is made of.

Written out, a float32 copy of a large activation costs more than all that is done with it. These
kernels read and write activations as they are and compute in float32 (float64 for float64). They
are not for a compiler, which fuses plain arithmetic by itself.

Axes: B images in G equal groups of neighbours, ch channels, H x W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import batch_norm

MeanVar = tuple[Tensor, Tensor]  # mean, biased variance


def mean_and_variance(x: Tensor, groups: int) -> MeanVar:
    """Return mean and biased variance of every channel over (B / G, H, W), (G, ch) each.

    Computed in two passes, so that the variance stays exact where the mean is large. On a CPU the
    numbers of a group do not depend on how many others there are, to the last bit.
    """
    found = [_of_columns(one) if x.device.type == "cpu" else _of(one) for one in x.chunk(groups)]
    mean, var = (of[0][None] if groups == 1 else torch.stack(of) for of in zip(*found, strict=True))
    return mean, var


def affine(x: Tensor, scale: Tensor, offset: Tensor, *, shift: Tensor | None = None) -> Tensor:
    """Return (x - shift) * scale + offset by channel, like `x`; the others are (ch,)."""
    if shift is None:
        shift = torch.zeros_like(scale)
    return batch_norm(x, shift, torch.ones_like(scale), scale, offset, eps=0.0)


def gradient_of_moments(x: Tensor, mean: Tensor, grad_mean: Tensor, grad_var: Tensor) -> Tensor:
    """Return the gradient in `x` of its moments, (B, ch, H, W); the others are (G, ch).

    What is narrower than float32 stays so; under a compiler, which this serves too, it is widened.
    """
    groups = len(mean)
    n = x.numel() // mean.numel()
    # d mean / dx = 1/n and d var / dx = 2 (x - mean)/n: an affine function of x per channel.
    slope = grad_var * (2 / n)
    offset = torch.addcmul(grad_mean / n, slope, mean, value=-1)
    if x.dtype != mean.dtype and not is_compiling():
        parts = [affine(*one) for one in zip(x.chunk(groups), slope, offset, strict=True)]
        return parts[0] if groups == 1 else torch.cat(parts)
    grouped = x.to(mean.dtype).view(groups, -1, *x.shape[1:])
    slope, offset = (values[:, None, :, None, None] for values in (slope, offset))
    return torch.addcmul(offset, grouped, slope).flatten(0, 1)


def _of(x: Tensor) -> MeanVar:
    """Return mean and biased variance of (B, ch, H, W), (ch,) each."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    unused = torch.empty(2, x.shape[1], dtype=dtype, device=x.device)  # of the type of the result
    mean, var = torch.ops.aten.batch_norm_update_stats(x, *unused, 1.0)
    return mean, var


def _of_columns(x: Tensor) -> MeanVar:
    """Return the same for a CPU, column by column of the map, then put together.

    The kernel adds numbers up one after another. Sums over rows of images alone are short enough
    to be exact to 1e-6 of a variance; sums over all positions leave 1e-4.
    """
    batch, channels, height, width = x.shape
    flat = x.permute(0, 2, 3, 1).reshape(batch, height, 1, width * channels)
    means, variances = (part.view(width, channels) for part in _of(flat.permute(0, 3, 1, 2)))
    between, mean = torch.var_mean(means, 0, correction=0)
    return mean, variances.mean(0) + between
