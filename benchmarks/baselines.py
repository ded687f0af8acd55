"""The published recover loop, written from its description: hooks, a batch crop, a clip loop.

It exists to be measured against, and to prove that our step computes the same loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from distill_core.pixel_space import PixelSpace
from distill_core.views import View


class HookedTeacher:
    """A frozen network whose batch norm inputs are measured by forward hooks."""

    def __init__(self, model: nn.Module, first_layer_factor: float) -> None:
        self.model = model.eval().requires_grad_(False)
        self.factor = first_layer_factor
        self.gaps: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(self._measure)

    def _measure(self, module: nn.BatchNorm2d, inputs: tuple[Tensor], _: Tensor) -> None:
        x = inputs[0]
        mean = x.mean([0, 2, 3])
        var = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        gap = torch.norm(module.running_var - var, 2) + torch.norm(module.running_mean - mean, 2)
        self.gaps.append(gap)

    def losses(self, views: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropy and the statistics gap of a batch of views (B, 3, S, S)."""
        self.gaps.clear()
        entropy = cross_entropy(self.model(views), targets)
        return entropy, self.factor * self.gaps[0] + torch.stack(self.gaps[1:]).sum()


def baseline_step(
    images: Tensor,
    targets: Tensor,
    *,
    teacher: HookedTeacher,
    optimizer: torch.optim.Optimizer,
    view: View,
    weight: float,
    space: PixelSpace,
) -> tuple[float, float]:
    """Take one step as the published loops do; `view` is one draw shared by the batch."""
    optimizer.zero_grad()
    top, left, height, width = view.boxes[0].tolist()
    side = images.shape[-1]
    bilinear = InterpolationMode.BILINEAR
    cut = tv.resized_crop(images, top, left, height, width, [side, side], bilinear, antialias=False)
    flipped = tv.hflip(cut) if view.flips[0] else cut
    views = torch.roll(flipped, tuple(view.rolls[0].tolist()), (2, 3))
    entropy, gap = teacher.losses(views, targets)
    (entropy + weight * gap).backward()
    optimizer.step()
    for channel in range(3):
        low, high = space.low[0, channel].item(), space.high[0, channel].item()
        images.data[:, channel] = torch.clip(images.data[:, channel], low, high)
    return entropy.item(), gap.item()
