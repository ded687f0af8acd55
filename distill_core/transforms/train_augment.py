"""Augmentation of real training images, drawn per image: sample, then apply.

Axes: B images, S side in pixels. Pixels stay uint8 until they are cropped, to move a batch once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.fields import Triple
from distill_core.config.training import AugmentConfig
from distill_core.data.decoding.crops import CropDraws
from distill_core.transforms.pixel_space import normalise
from distill_core.transforms.upload import upload
from distill_core.transforms.views import View, apply_view, sample_view


@dataclass(frozen=True)
class Augmentation:
    """One draw for a batch; steps that the configuration leaves out are None."""

    windows: np.ndarray | None  # int32 (B, 2) top, left in the padded image
    flips: np.ndarray | None  # bool (B,)
    crops: View | None  # random resized crops
    holes: np.ndarray | None  # int32 (B, 2) row, column of the centre of a zeroed square
    cuts: CropDraws | None = None  # crops of whole images, which the decoder cuts

    def take(self, rows: np.ndarray) -> Augmentation:
        """Return the draw of some of the images."""
        return Augmentation(
            None if self.windows is None else self.windows[rows],
            None if self.flips is None else self.flips[rows],
            None if self.crops is None else self.crops.rows(rows),
            None if self.holes is None else self.holes[rows],
            None if self.cuts is None else self.cuts.rows(rows),
        )


def sample_augmentation(
    rng: np.random.Generator,
    config: AugmentConfig,
    *,
    count: int,
    side: int,
    whole_images: bool = False,
) -> Augmentation:
    """Draw one value of each kind per image.

    Args:
        rng: source of the draws.
        config: what is drawn.
        count: B.
        side: S.
        whole_images: crops are cut from whole images by the decoder, and not from squares.
    """
    windows = flips = crops = holes = cuts = None
    if config.pad_crop:
        windows = rng.integers(0, 2 * config.pad_crop + 1, (count, 2), dtype=np.int32)
    if config.flip:
        flips = rng.random(count) < 0.5
    if config.crop is not None and whole_images:
        cuts = CropDraws.sample(rng, count, config.crop)
    elif config.crop is not None:
        crops = sample_view(rng, count=count, side=side, scale=config.crop, flip=False)
    if config.cutout:
        holes = rng.integers(0, side, (count, 2), dtype=np.int32)
    return Augmentation(windows, flips, crops, holes, cuts)


def apply_augmentation(
    pixels: Tensor, draw: Augmentation, config: AugmentConfig, *, mean: Triple, std: Triple
) -> Tensor:
    """Cut windows, flip, normalise, crop and erase; deterministic.

    Crops of whole images have been cut before, when the images were decoded.

    Args:
        pixels: (B, 3, S, S) uint8.
        draw: for the same B images.
        config: that `draw` was sampled with.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].

    Returns:
        (B, 3, S, S) float32, normalised, channels last, on the device of `pixels`.

    Source: random windows and flips arXiv:1512.03385, section 4.2 (zero padding in pixel space);
    erased squares arXiv:1708.04552, section 3 (zero is the mean colour; may leave the image).
    """
    if draw.windows is not None:
        pixels = _gather(pixels, draw.windows, draw.flips, margin=config.pad_crop)
    elif draw.flips is not None:
        flips = upload(draw.flips, pixels.device)[:, None, None, None]
        pixels = torch.where(flips, pixels.flip(3), pixels)  # half the time of a gather
    images = normalise(pixels, mean=mean, std=std)
    if draw.crops is not None:
        images = apply_view(images, draw.crops, out=pixels.shape[-1])
    if draw.holes is not None:
        images = _erase(images, draw.holes, length=round(config.cutout * pixels.shape[-1]))
    return images.contiguous(memory_format=torch.channels_last)


def _gather(
    pixels: Tensor, windows: np.ndarray, flips: np.ndarray | None, *, margin: int
) -> Tensor:
    """Cut a window of each zero-padded image and flip it, with one gather for any draw."""
    count, _, side, _ = pixels.shape
    device, width = pixels.device, side + 2 * margin
    along = torch.arange(side, device=device, dtype=torch.int32)
    columns = along.expand(count, side)
    if flips is not None:
        columns = torch.where(upload(flips, device)[:, None], along.flip(0), along)
    placed = upload(windows, device)
    rows, columns = along + placed[:, :1], columns + placed[:, 1:]
    # Three channels and an unused one are gathered as one number.
    padded = pixels.new_zeros(count, width, width, 4)
    inside = slice(margin, margin + side)
    padded[:, inside, inside, :3] = pixels.permute(0, 2, 3, 1)
    first = torch.arange(count, device=device, dtype=torch.int32)[:, None] * width
    places = (first + rows)[:, :, None] * width + columns[:, None, :]
    cut = padded.view(torch.int32).view(-1).index_select(0, places.view(-1))
    return cut.view(torch.uint8).view(count, side, side, 4)[..., :3].permute(0, 3, 1, 2)


def _erase(images: Tensor, holes: np.ndarray, *, length: int) -> Tensor:
    """Zero a square of `length` pixels around each centre, clipped to the image."""
    along = torch.arange(images.shape[-1], device=images.device)
    first = upload(holes, images.device) - length // 2
    inside = (along >= first[..., None]) & (along < first[..., None] + length)  # (B, 2, S)
    hole = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images.masked_fill(hole[:, None], 0.0)
