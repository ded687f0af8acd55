"""The published loops, written from their descriptions, to be measured against.

Squeeze: a chain of PIL transforms per image. Recover: hooks, a batch crop, a clip loop. Labels: one
`torch.save` per batch, logits in half precision. Post-train: a file and a chain of PIL transforms
per image. Tests prove that ours computes the same losses and shows the same views.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from distill_core.transforms.mixing import Mix
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.train_augment import Augmentation
from distill_core.transforms.views import View


def decode_files(files: Sequence[bytes]) -> np.ndarray:
    """Return image files of one size as (n, S, S, 3) uint8, one after another."""
    found = []
    for file in files:
        with Image.open(io.BytesIO(file)) as image:
            found.append(np.asarray(image.convert("RGB")))
    return np.stack(found)


def load_training_batch(
    pixels: np.ndarray, rows: np.ndarray, drawn: Augmentation, *, margin: int, space: PixelSpace
) -> Tensor:
    """Return padded, cropped, flipped and normalised images, (B, 3, S, S), as loaders do.

    Args:
        pixels: (n, S, S, 3) uint8.
        rows: (B,) the images of the batch.
        drawn: windows and flips of the same B images.
        margin: zero padding in pixels.
        space: mean and standard deviation.
    """
    assert drawn.windows is not None
    assert drawn.flips is not None
    mean, std = (channel.flatten().tolist() for channel in (space.mean, space.std))
    side, views = pixels.shape[1], []
    for row, (top, left), flip in zip(rows, drawn.windows.tolist(), drawn.flips, strict=True):
        padded = tv.pad(Image.fromarray(pixels[row]), [margin])
        cut = tv.crop(padded, top, left, side, side)
        views.append(tv.normalize(tv.to_tensor(tv.hflip(cut) if flip else cut), mean, std))
    return torch.stack(views)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> float:
    """Take one step of supervised training; return the loss."""
    optimizer.zero_grad()
    loss = cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


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


def save_labels(logits: Tensor, boxes: Tensor, flips: Tensor) -> bytes:
    """Return the label file of one batch: (B, C) logits as fp16, (B, 4) boxes, (B,) flips."""
    file = io.BytesIO()
    torch.save([boxes, flips, logits.half()], file)
    return file.getvalue()


def load_labels(data: bytes) -> Tensor:
    """Return the logits of one batch, (B, C) float32."""
    logits: Tensor = torch.load(io.BytesIO(data), weights_only=True)[2]
    return logits.float()


def load_view(
    file: bytes, box: tuple[int, int, int, int], flip: bool, side: int, space: PixelSpace
) -> Tensor:
    """Return one training view of an image file, (3, side, side) normalised, as loaders do."""
    with Image.open(io.BytesIO(file)) as image:
        bilinear = InterpolationMode.BILINEAR
        cut = tv.resized_crop(image.convert("RGB"), *box, [side, side], bilinear)
    pixels = tv.to_tensor(tv.hflip(cut) if flip else cut)
    mean, std = (channel.flatten().tolist() for channel in (space.mean, space.std))
    normalised: Tensor = tv.normalize(pixels, mean, std)
    return normalised


def load_batch(
    files: Sequence[bytes], view: View, mix: Mix, *, side: int, space: PixelSpace
) -> Tensor:
    """Return a batch of views with CutMix, (B, 3, side, side): one box and one order per batch."""
    boxes = [tuple(int(v) for v in box) for box in view.boxes]
    views = torch.stack(
        [
            load_view(file, box, bool(flip), side, space)  # type: ignore[arg-type]
            for file, box, flip in zip(files, boxes, view.flips, strict=True)
        ]
    )
    top, left, height, width = mix.boxes[0].tolist()
    partners = views[torch.from_numpy(mix.partners.astype("int64"))]
    inside = (..., slice(top, top + height), slice(left, left + width))
    views[inside] = partners[inside]
    return views
