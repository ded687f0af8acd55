"""A check of convolutions and their gradients, in a process that a broken kernel may end.

``python -m distill_core.models.layout_check`` computes every kind of convolution that the networks
of `build` have, in the layout that `layout` chooses, and compares it with float64. A forked child
computes the convolutions that `layout` excludes. If a signal ends that child, the excluded kernel
is broken on this machine, which is no error. The last line of the output is JSON, see `Findings`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.models.build import MODELS, skeleton
from distill_core.models.layout import VECTOR, training_layout

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)  # of the networks whose width is free
WIDE = 128  # more channels than this only run the same kernels more often
IMAGES, SIDE, REPEATS = 8, 8, 2
TOLERANCE = 1e-4  # of float32 against float64, relative to the largest number
WRONG = 3  # exit code of a child that computed wrong numbers

Pair = tuple[int, int]


@dataclass(frozen=True)
class Findings:
    """The results of the two processes."""

    count: int  # kinds of convolution that were computed in the layout chosen
    wrong: tuple[str, ...]  # those of them whose numbers are wrong
    excluded: int  # exit code of the child: 0, `WRONG`, or the negative number of a signal


@dataclass(frozen=True, order=True)
class Shape:
    """Properties of a convolution that decide, with layout and type, which kernel computes it."""

    channels: int
    out: int
    kernel: Pair
    stride: Pair
    padding: Pair
    depthwise: bool = False

    @classmethod
    def of(cls, module: nn.Conv2d) -> Shape:
        """Return the shape of a layer, with fewer channels where it has very many."""
        kernel, stride, padding = (
            _pair(sizes) for sizes in (module.kernel_size, module.stride, module.padding)
        )
        channels, out = _fewer(module.in_channels), _fewer(module.out_channels)
        return cls(channels, out, kernel, stride, padding, module.groups > 1)

    def layer(self) -> nn.Conv2d:
        """Return a layer of this shape."""
        return nn.Conv2d(
            self.channels,
            self.out,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            groups=self.channels if self.depthwise else 1,
            bias=False,
        )


def network_shapes() -> list[Shape]:
    """Return the distinct convolutions of every network, the free widths in several sizes."""
    found: set[Shape] = set()
    for name in MODELS:
        free = name.startswith(("resnet18_small", "resnet18_maxpool_small", "convnet"))
        for width in WIDTHS if free else (None,):
            modules = skeleton(ModelConfig(name=name, width=width), 10).modules()
            found |= {Shape.of(module) for module in modules if isinstance(module, nn.Conv2d)}
    return sorted(found)


def excluded_shapes() -> list[Shape]:
    """Return shortcuts that `layout` never lets run with the channels last."""
    strides = (2, 2), (2, 1), (1, 2)
    return [
        Shape(channels, 2 * channels, (1, 1), stride, (0, 0))
        for channels in range(1, VECTOR)
        for stride in strides
    ]


def error(shape: Shape, layout: torch.memory_format) -> float:
    """Return the largest error of a convolution in float32, relative to the largest number.

    The output and the gradients by input and by weight count.
    """
    side = max(SIDE, *shape.kernel)
    source = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, shape.channels, side, side, generator=source)
    layer = shape.layer()
    exact = _compute(layer.double(), images.double())
    layer = layer.float().to(memory_format=layout)
    found = [_compute(layer, images.to(memory_format=layout)) for _ in range(REPEATS)]
    return max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for one in found
        for ours, theirs in zip(one, exact, strict=True)
    )


def wrong_shapes(shapes: Iterable[Shape], layout: torch.memory_format | None = None) -> list[Shape]:
    """Return the convolutions whose numbers are wrong.

    Args:
        shapes: what is computed.
        layout: None is the one that a training would have.
    """
    found = []
    for shape in shapes:
        chosen = layout or training_layout(shape.layer(), device="cpu", dtype=torch.float32)
        if not error(shape, chosen) <= TOLERANCE:  # not a number is wrong, too
            found.append(shape)
    return found


def excluded_exit_code() -> int:
    """Compute the excluded shapes in a forked child; return how it ended, see `Findings`.

    To be called before this process has computed anything, whose threads a fork would lack.
    """
    child = multiprocessing.get_context("fork").Process(target=_compute_excluded)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def main() -> None:
    """Print the findings."""
    torch.set_num_threads(1)
    excluded = excluded_exit_code()
    shapes = network_shapes()
    wrong = tuple(map(str, wrong_shapes(shapes)))
    print(json.dumps(asdict(Findings(len(shapes), wrong, excluded))))


def _compute_excluded() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno()
    )  # without the C library's message
    sys.exit(WRONG if wrong_shapes(excluded_shapes(), torch.channels_last) else 0)


def _compute(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    images = images.detach().requires_grad_()
    layer.weight.grad = None
    out = layer(images)
    out.square().mean().backward()
    assert images.grad is not None
    assert layer.weight.grad is not None
    return out.detach(), images.grad, layer.weight.grad


def _fewer(channels: int) -> int:
    """Return a smaller number with the same remainder by every length of a vector."""
    return channels if channels <= WIDE else WIDE // 2 + channels % (WIDE // 2)


def _pair(sizes: Sequence[int] | str) -> Pair:
    assert not isinstance(sizes, str)
    return sizes[0], sizes[1]


if __name__ == "__main__":
    main()
