"""Views as torchvision makes them, one operation after another."""

from __future__ import annotations

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from distill_core.transforms.views import View


def torchvision_view(image: torch.Tensor, view: View, n: int, out: int) -> torch.Tensor:
    """Apply one draw the way the published loops do."""
    top, left, height, width = view.boxes[n].tolist()
    size = [out, out]
    bilinear = InterpolationMode.BILINEAR
    cut = tv.resized_crop(image, top, left, height, width, size, bilinear, antialias=False)
    flipped = tv.hflip(cut) if view.flips[n] else cut
    return torch.roll(flipped, tuple(view.rolls[n].tolist()), (-2, -1))
