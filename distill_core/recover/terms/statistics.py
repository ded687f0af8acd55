"""Terms that compare a batch's statistics with others; pure functions of one batch.

Axes: B images, ch channels, P patches of the activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distill_core.models.moments import MeanVar
from distill_core.recover.terms.distances import distances
from distill_core.recover.terms.forward import Forward


def bn_statistics(forward: Forward) -> Tensor:
    """Return how far batch statistics are from running ones, summed over batch norm layers.

    Per layer ||running_mean - mean||_2 + ||running_var - var||_2, biased variance, statistics of
    the layer's input over the whole batch; the first layer counts `first_layer_factor` times, the
    variance `variance_factor` times. Zero for a teacher without batch norm.

    Source: arXiv:2306.13092 (SRe2L), section 3.2, eq. 8; the first factor is from the published
    code, the second from arXiv:2409.17612 (DWA).
    """
    expected = [(s.running_mean, s.running_var) for s in forward.teacher.statistics]
    return _batch_norm_gap(forward, expected)


def relative_bn_statistics(forward: Forward) -> Tensor:
    """Return how far batch statistics are from running ones, relative to them: a mean over layers.

    Per layer ||running_mean - mean||_2 / ||running_std||_2 + ||running_var - var||_2 /
    ||running_var||_2, each at most a few units whatever the scale and the width of the layer; the
    factors are those of `bn_statistics`. One weight therefore suits networks whose activations
    differ by orders of magnitude. Zero for a teacher without batch norm.

    Source: arXiv:2306.13092 (SRe2L), section 3.2, eq. 8. Differs from it: each layer's gaps are
    divided by the size of its running statistics, and averaged over the layers, not summed.
    """
    layers = forward.teacher.statistics
    if not layers:
        return forward.teacher.features.sum() * 0.0
    variances = [layer.running_var for layer in layers]
    spread = torch.stack([var.sum() for var in variances]).sqrt()
    means = distances([layer.mean for layer in layers], [layer.running_mean for layer in layers])
    gaps = distances([layer.var for layer in layers], variances)
    gaps = means / spread + forward.config.variance_factor * gaps / torch.stack(
        torch._foreach_norm(variances)
    )
    return (gaps.sum() + (forward.config.first_layer_factor - 1) * gaps[0]) / len(layers)


def class_bn_statistics(forward: Forward) -> Tensor:
    """Return how far batch statistics are from those of the batch's classes, summed over layers.

    As `bn_statistics`, with the mean and variance that real images of the classes have at each
    layer in place of the running ones; those of several classes are averaged. Beside
    `bn_statistics`, weighted alpha and 1 - alpha, it is EDC's soft category-aware matching.

    Source: LPLD (NeurIPS 2024), class-wise supervision, where a batch is of one class. Differs
    from its code: batches of several classes are allowed.
    """
    return _batch_norm_gap(forward, forward.moments["class_bn_statistics"])


def conv_statistics(forward: Forward) -> Tensor:
    """Return how far channel statistics at the inputs of convolutions are from those of real ones.

    Per convolution ||mean' - mean||_2 + ||var' - var||_2 over the (ch,) channels of its input,
    biased variance, where mean' and var' are those of the real images of all classes; the first
    convolution counts `first_convolution_factor` times, the variance `variance_factor` times.
    Convolutions that were left out of the step do not count.

    Source: arXiv:2311.17950 (G-VBSM), section 3.2, and its published code, which measures inputs.
    Differs from it: real images are measured once, without augmentation, and their variance is
    that of all of them together, not the mean over batches of 256.
    """
    return _convolution_gap(forward, "conv_statistics", forward.teacher.convolutions.channels)


def class_conv_statistics(forward: Forward) -> Tensor:
    """Return the gap of `conv_statistics` to the real images of the batch's classes.

    Statistics of several classes are averaged over the images of the batch. Beside
    `conv_statistics`, weighted alpha and 1 - alpha, it is EDC's soft category-aware matching.

    Source: arXiv:2404.13733 (EDC), section 3.2, eq. 5, and its published code. Differs from the
    code: the variance of a class is that of all its images together, not the mean of the
    variances within images.
    """
    return _convolution_gap(forward, "class_conv_statistics", forward.teacher.convolutions.channels)


def patch_statistics(forward: Forward) -> Tensor:
    """Return the gap of `conv_statistics` for patches in place of channels.

    A patch is a square of activations over all channels and images; see `patch_moments`.

    Source and differences: as `conv_statistics`.
    """
    return _convolution_gap(forward, "patch_statistics", forward.teacher.convolutions.patches)


def class_patch_statistics(forward: Forward) -> Tensor:
    """Return the gap of `class_conv_statistics` for patches in place of channels.

    Source and differences: as `class_conv_statistics`; the published code swaps mean and variance
    of a class when it saves them, this does not.
    """
    return _convolution_gap(forward, "class_patch_statistics", forward.teacher.convolutions.patches)


def _batch_norm_gap(forward: Forward, expected: Sequence[MeanVar]) -> Tensor:
    actual = {n: (s.mean, s.var) for n, s in enumerate(forward.teacher.statistics)}
    return _gap(forward, actual, expected, forward.config.first_layer_factor)


def _convolution_gap(forward: Forward, term: str, actual: Mapping[int, MeanVar]) -> Tensor:
    convolutions = forward.config.convolutions
    first_factor = 1.0 if convolutions is None else convolutions.first_layer_factor
    return _gap(forward, actual, forward.moments[term], first_factor)


def _gap(
    forward: Forward,
    actual: Mapping[int, MeanVar],
    expected: Sequence[MeanVar],
    first_factor: float,
) -> Tensor:
    """Return the sum over the layers that were measured; zero where there are none."""
    if not actual:
        return forward.teacher.features.sum() * 0.0
    real = [expected[number] for number in actual]
    gaps = distances([mean for mean, _ in actual.values()], [mean for mean, _ in real])
    gaps = gaps + forward.config.variance_factor * distances(
        [var for _, var in actual.values()], [var for _, var in real]
    )
    total = gaps.sum()
    return total + (first_factor - 1) * gaps[list(actual).index(0)] if 0 in actual else total
