"""Convolutions of a frozen network that also measure their input.

While its tape has a probe, a convolution measures its input first: mean and variance of every
channel or of every square patch, or pooled features of every image. Without a probe it is the plain
convolution. The measurements are a pure function of one batch's activations.

Axes: B images in G groups of neighbours, ch channels, H x W positions, P patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from distill_core.models.measuring import by_group, replace_modules
from distill_core.models.moments import (
    PATCH_SIDE,
    MeanVar,
    channel_moments,
    patch_moments,
    widened,
)


@dataclass(frozen=True, slots=True)
class Probe:
    """The measurements to take at the inputs of the convolutions in one forward pass."""

    channels: bool = False
    patches: bool = False
    patch_side: int = PATCH_SIDE  # activations per side of a patch
    layer: int | None = None  # the convolution whose input is returned as features
    grid: int = 1  # cells per side to which features are pooled


@dataclass(slots=True)
class Probed:
    """The measurements of one group, by number of the convolution; float32 or float64."""

    channels: dict[int, MeanVar] = field(default_factory=dict)  # (ch,) each
    patches: dict[int, MeanVar] = field(default_factory=dict)  # (P,) each
    features: Tensor | None = None  # (B, ch * grid^2)


@dataclass
class ConvolutionTape:
    """The probe and the measurements of one network's convolutions in one forward pass."""

    probe: Probe | None = None
    sizes: Sequence[int] = ()  # of the groups
    skipped: Sequence[frozenset[int]] = ()  # by group, the convolutions that are not measured
    probed: list[Probed] = field(default_factory=list)  # by group

    @contextmanager
    def measure(
        self, probe: Probe, sizes: Sequence[int], skipped: Sequence[frozenset[int]] = ()
    ) -> Iterator[None]:
        """Let the layers measure each group separately during a `with` block."""
        self.sizes, self.skipped = sizes, skipped or (frozenset(),) * len(sizes)
        self.probed = [Probed({}, {}) for _ in sizes]
        self.probe = probe
        try:
            yield
        finally:
            self.probe = None

    def take(self) -> tuple[Probed, ...]:
        """Return and clear the measurements, by group."""
        probed, self.probed = tuple(self.probed), []
        return probed

    def record(self, number: int, x: Tensor) -> None:
        """Take the measurements of convolution `number`; x is its input (B, ch, H, W)."""
        probe, sizes = self.probe, self.sizes
        if probe is None:
            return
        if probe.layer == number:
            pooled = adaptive_avg_pool2d(widened(x), probe.grid).flatten(1)
            for group, features in zip(self.probed, torch.split(pooled, list(sizes)), strict=True):
                group.features = features
        if all(number in skipped for skipped in self.skipped):
            return
        if probe.channels:
            channels = by_group(channel_moments, x, sizes)
            self._note(number, channels, [group.channels for group in self.probed])
        if probe.patches:
            patches = by_group(partial(patch_moments, side=probe.patch_side), x, sizes)
            self._note(number, patches, [group.patches for group in self.probed])

    def _note(
        self, number: int, moments: Sequence[Tensor], groups: Sequence[dict[int, MeanVar]]
    ) -> None:
        for group, skipped, mean, var in zip(groups, self.skipped, *moments, strict=True):
            if number not in skipped:
                group[number] = (mean, var)


class StatisticsConv2d(nn.Conv2d):
    """Replacement of a `Conv2d`, with its weights, that passes its input to a tape.

    Source: arXiv:2311.17950 (G-VBSM), section 3.2, and its published code, where a hook measures.
    """

    def __init__(self, conv: nn.Conv2d, number: int, *, tape: ConvolutionTape) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.number, self.tape = number, tape

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (B, ch, H, W)."""
        if self.tape.probe is not None:
            self.tape.record(self.number, x)
        return super().forward(x)


def measure_convolutions(model: nn.Module) -> tuple[ConvolutionTape, int]:
    """Replace every `Conv2d` of a frozen network, in place.

    Returns:
        The tape they share, and how many were replaced; numbers follow registration order.
    """
    tape = ConvolutionTape()
    return tape, replace_modules(model, nn.Conv2d, partial(StatisticsConv2d, tape=tape))
