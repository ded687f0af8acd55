"""Mosaics of the real crops that a teacher classifies best, and images cut into their tiles.

Source: arXiv:2312.03526 (RDED), section 4, and its published code. Differs from it: crops are cut
from images already brought to S x S; the teacher stays in eval mode; a class with few images uses
crops again instead of failing; which image of a class gets which crops does not depend on how many
images there will be, so that more of them extend the set.

Axes: n real images of a class, k crops of each, B images, S side, f tiles per side, s = S / f.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, pad

from distill_core.config.recovery_settings import MosaicConfig
from distill_core.models.teacher import FORWARD_BATCH, FrozenTeacher
from distill_core.seeds import generator, philox_key
from distill_core.selection.class_images import normalised
from distill_core.transforms.upload import upload
from distill_core.transforms.views import apply_view, sample_view


def choose_candidates(
    rows: np.ndarray, wnid: str, config: MosaicConfig, *, seed: int
) -> np.ndarray:
    """Draw the rows of a class whose crops are scored, at most `config.images` of them."""
    order = generator(philox_key(seed, "recover", f"mosaic/{wnid}")).permutation(len(rows))
    return rows[order[: config.images]]


@dataclass(frozen=True)
class RankedCrops:
    """The best crop of each candidate of a class, in the order in which they are used."""

    crops: np.ndarray  # (n, 3, s, s) uint8
    order: np.ndarray  # (n,) int64, which candidate each is of


@torch.no_grad()
def rank_crops(
    pixels: np.ndarray,
    label: int,
    wnid: str,
    *,
    config: MosaicConfig,
    teacher: FrozenTeacher,
    seed: int,
) -> RankedCrops:
    """Return the best crop of each image; the crop most like its class first, or the median one.

    Args:
        pixels: (n, 3, S, S) uint8, the candidates of one class.
        label: its id.
        wnid: its name; with the seed it decides the crops.
        config: crops per image, their area, tiles per side.
        teacher: frozen; its cross-entropy is the score, low is good.
        seed: the run's seed.
    """
    side, rng = pixels.shape[-1], generator(philox_key(seed, "recover", f"crops/{wnid}"))
    small = side // config.factor
    device = teacher.head.weight.device
    images = upload(pixels, device).repeat_interleave(config.crops, dim=0)
    view = sample_view(
        rng, count=len(images), side=side, scale=config.scale, ratio=(1.0, 1.0), flip=False
    )
    crops = apply_view(images.to(teacher.head.weight.dtype), view, out=small)
    crops = crops.round().clamp(0, 255).to(torch.uint8)
    scores = _scores(crops, label, teacher, side).view(-1, config.crops)
    best = crops.view(-1, config.crops, 3, small, small)[
        torch.arange(len(scores), device=device), scores.argmin(dim=1)
    ]
    order = torch.argsort(_cost(scores.amin(dim=1), config.order), stable=True)
    return RankedCrops(best[order].cpu().numpy(), order.cpu().numpy())


def stitch(crops: np.ndarray, ipc_index: int, *, factor: int) -> np.ndarray:
    """Return one mosaic: the f x f crops whose turn it is, row by row.

    Args:
        crops: (n, 3, s, s) uint8, best first.
        ipc_index: which image of its class; the next ones take the next crops.
        factor: tiles per side f.

    Returns:
        (3, f s, f s) uint8.
    """
    count = factor**2
    turn = (np.arange(count) + ipc_index * count) % len(crops)
    tiles = crops[turn].reshape(factor, factor, *crops.shape[1:])
    side = factor * crops.shape[-1]
    return np.ascontiguousarray(tiles.transpose(2, 0, 3, 1, 4)).reshape(3, side, side)


def tiles_of(images: Tensor, factor: int) -> Tensor:
    """Cut images into tiles, row by row, each brought back to the side of an image, bilinear.

    Args:
        images: (B, 3, S, S).
        factor: tiles per side f, a divisor of S; 1 returns the images.

    Returns:
        (B f^2, 3, S, S), the tiles of an image adjacent.
    """
    if factor == 1:
        return images
    count, channels, side = images.shape[:3]
    small = side // factor
    cut = images.view(count, channels, factor, small, factor, small).permute(0, 2, 4, 1, 3, 5)
    flat = cut.reshape(count * factor**2, channels, small, small)
    return interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)


def _cost(scores: Tensor, order: Literal["easiest", "median"]) -> Tensor:
    """Return the numbers that crops are sorted by, (n,), low first.

    Source of `median`: arXiv:2411.19946 (DELT), section 3.2, and its published selector.
    """
    if order == "easiest":
        return scores
    probability = torch.exp(-scores)
    return (probability - probability.median()).abs()


def _scores(crops: Tensor, label: int, teacher: FrozenTeacher, side: int) -> Tensor:
    """Return the teacher's cross-entropy of each crop, on a field of zeros as large as an image."""
    before = (side - crops.shape[-1]) // 2
    after = side - crops.shape[-1] - before
    target = torch.full((len(crops),), label, device=crops.device)
    logits = [
        teacher(pad(normalised(teacher, part), (before, after, before, after))).logits
        for part in torch.split(crops, FORWARD_BATCH)
    ]
    return cross_entropy(torch.cat(logits).float(), target, reduction="none")
