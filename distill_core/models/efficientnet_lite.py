"""EfficientNet-lite: inverted residual blocks without squeeze-and-excitation, with ReLU6.

Parameter names are those of the published PyTorch checkpoints, which therefore load unchanged.

Axes: B images, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import pad

STEM, HEAD = 32, 1280  # channels of the first and of the last convolution, in every variant
NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01


@dataclass(frozen=True)
class Stage:
    """Blocks of one width, for factors of width and depth of 1."""

    blocks: int
    kernel: int
    stride: int  # of the first block
    expansion: int
    channels: int


@dataclass(frozen=True)
class Variant:
    """The factors that make a variant of the smallest network."""

    width: float
    depth: float
    dropout: float


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
VARIANTS: Mapping[str, Variant] = {
    "efficientnet_lite0": Variant(width=1.0, depth=1.0, dropout=0.2),
    "efficientnet_lite1": Variant(width=1.0, depth=1.1, dropout=0.2),
    "efficientnet_lite2": Variant(width=1.1, depth=1.2, dropout=0.3),
}


class SamePad2d(nn.Module):
    """Zero padding such that a convolution of stride s returns ceil(S / s) positions a side.

    Where the padding of a side is odd, the larger part is at its end.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, ch, H + pad, W + pad)."""
        (top, bottom), (left, right) = (self._sides(length) for length in x.shape[-2:])
        return pad(x, (left, right, top, bottom))

    def _sides(self, length: int) -> tuple[int, int]:
        total = (-(-length // self.stride) - 1) * self.stride + self.kernel - length
        return max(total, 0) // 2, max(total, 0) - max(total, 0) // 2


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution and a 1x1 projection, with a shortcut if it fits."""

    def __init__(self, channels: int, out: int, *, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = channels * stage.expansion
        self.shortcut = stride == 1 and channels == out
        self._expand_conv: nn.Module | None = None
        if wide != channels:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._pad = SamePad2d(stage.kernel, stride)
        self._depthwise_conv = nn.Conv2d(
            wide, wide, stage.kernel, stride=stride, groups=wide, bias=False
        )
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = _norm(out)
        self._relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, H / stride, W / stride), rounded up."""
        y = x
        if self._expand_conv is not None:
            y = self._relu(self._bn0(self._expand_conv(y)))
        y = self._relu(self._bn1(self._depthwise_conv(self._pad(y))))
        y = self._bn2(self._project_conv(y))
        out: Tensor = y + x if self.shortcut else y
        return out


class EfficientNetLite(nn.Module):
    """A variant of EfficientNet for devices without fast sigmoids.

    Source: arXiv:1905.11946 (EfficientNet), with the changes that TensorFlow's models publish under
    this name: no squeeze-and-excitation, ReLU6, and an unscaled stem, head, first and last stage.
    Padding follows TensorFlow's "SAME" rule at every size of image. Differs from the published
    training: no stochastic depth.
    """

    def __init__(self, num_classes: int, *, variant: Variant) -> None:
        super().__init__()
        self._pad = SamePad2d(3, 2)
        self._conv_stem = nn.Conv2d(3, STEM, 3, stride=2, bias=False)
        self._bn0 = _norm(STEM)
        self._relu = nn.ReLU6(inplace=True)
        blocks, channels = list[nn.Module](), STEM
        for number, stage in enumerate(STAGES):
            out = _channels(stage.channels * variant.width)
            scaled = 0 < number < len(STAGES) - 1
            count = math.ceil(stage.blocks * variant.depth) if scaled else stage.blocks
            for place in range(count):
                stride = 1 if place else stage.stride
                blocks.append(InvertedResidual(channels, out, stage=stage, stride=stride))
                channels = out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(channels, HEAD, 1, bias=False)
        self._bn1 = _norm(HEAD)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(variant.dropout)
        self._fc = nn.Linear(HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of normalised images (B, 3, S, S)."""
        x = self._relu(self._bn0(self._conv_stem(self._pad(x))))
        x = self._relu(self._bn1(self._conv_head(self._blocks(x))))
        logits: Tensor = self._fc(self._dropout(self._avg_pooling(x).flatten(1)))
        return logits


def efficientnet_lite(name: str, num_classes: int) -> EfficientNetLite:
    """Return a variant with its random start.

    Args:
        name: a key of `VARIANTS`.
        num_classes: C.
    """
    return EfficientNetLite(num_classes, variant=VARIANTS[name])


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)


def _channels(scaled: float) -> int:
    """Return the multiple of 8 nearest to a width, at most 10 % below it."""
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8
