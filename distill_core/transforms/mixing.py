"""CutMix, Mixup and Cutout of views: sampled per image, then applied in [0, 1] pixel space.

Axes: B images, S side of the view in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from distill_core.config.students import MixConfig
from distill_core.transforms.upload import upload


@dataclass(frozen=True, slots=True)
class Mix:
    """One draw for B images; fields that a kind does not use are neutral."""

    partners: np.ndarray  # (B,) int32: row of the image that is mixed in; neutral: the image itself
    lam: np.ndarray  # (B,) float32: share of the image itself; neutral: 1
    boxes: np.ndarray  # (B, 4) int32: top, left, height, width in the view; neutral: 0
    colours: np.ndarray  # (B, 3) float32 in [0, 1]; neutral: 0

    def rows(self, index: np.ndarray) -> Mix:
        """Return the draws of some of the images."""
        return Mix(self.partners[index], self.lam[index], self.boxes[index], self.colours[index])


Sampler = Callable[[np.random.Generator, MixConfig, int, int], Mix]
Applier = Callable[[Tensor, Tensor, Mix], Tensor]


def sample_mix(rng: np.random.Generator, config: MixConfig, *, count: int, side: int) -> Mix:
    """Draw for `count` images of one shard; partners are rows of the same shard."""
    return MIXES[config.kind][0](rng, config, count, side)


def apply_mix(kind: str, views: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    """Mix (B, 3, S, S) views with their partners' views; deterministic.

    Source: CutMix arXiv:1905.04899, Mixup arXiv:1710.09412, Cutout arXiv:1708.04552.
    Differs from the published distillation code: drawn per image instead of per batch, so that a
    label belongs to an (image, view) pair and not to a batch.
    """
    return MIXES[kind][1](views, partners, mix)


def has_partners(kind: str) -> bool:
    """Return whether a kind mixes two images."""
    return kind in ("cutmix", "mixup")


def _neutral(count: int) -> Mix:
    return Mix(
        np.arange(count, dtype=np.int32),
        np.ones(count, np.float32),
        np.zeros((count, 4), np.int32),
        np.zeros((count, 3), np.float32),
    )


def _sample_none(rng: np.random.Generator, config: MixConfig, count: int, side: int) -> Mix:
    return _neutral(count)


def _sample_mixup(rng: np.random.Generator, config: MixConfig, count: int, side: int) -> Mix:
    lam = rng.beta(config.alpha, config.alpha, count).astype(np.float32)
    partners = rng.permutation(count).astype(np.int32)
    neutral = _neutral(count)
    return Mix(partners, lam, neutral.boxes, neutral.colours)


def _sample_cutmix(rng: np.random.Generator, config: MixConfig, count: int, side: int) -> Mix:
    """Draw a clipped box of area 1 - lambda around a uniform centre; lambda is recomputed."""
    share = rng.beta(config.alpha, config.alpha, count)
    partners = rng.permutation(count).astype(np.int32)
    length = np.floor(side * np.sqrt(1.0 - share)).astype(np.int64)
    boxes = _centred_boxes(rng, length, side)
    left = 1.0 - boxes[:, 2].astype(np.float64) * boxes[:, 3] / side**2
    return Mix(partners, left.astype(np.float32), boxes, _neutral(count).colours)


def _sample_cutout(rng: np.random.Generator, config: MixConfig, count: int, side: int) -> Mix:
    """Draw a clipped hole of a fixed side around a uniform centre, with a uniform colour."""
    length = np.full(count, round(config.cutout * side), np.int64)
    boxes = _centred_boxes(rng, length, side)
    colours = rng.random((count, 3), dtype=np.float32)
    neutral = _neutral(count)
    return Mix(neutral.partners, neutral.lam, boxes, colours)


def _centred_boxes(rng: np.random.Generator, length: np.ndarray, side: int) -> np.ndarray:
    centres = rng.integers(0, side, (len(length), 2))
    start = np.clip(centres - length[:, None] // 2, 0, side)
    stop = np.clip(centres + length[:, None] // 2, 0, side)
    return np.concatenate([start, stop - start], axis=1).astype(np.int32)


def _keep(views: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    return views


def _blend(views: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    share = upload(mix.lam, views.device).to(views.dtype).view(-1, 1, 1, 1)
    return share * views + (1 - share) * partners


def _paste(views: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    return views.lerp(partners, _inside(views, mix))


def _fill(views: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    colours = upload(mix.colours, views.device).to(views.dtype).view(-1, 3, 1, 1)
    return views.lerp(colours, _inside(views, mix))


def _inside(views: Tensor, mix: Mix) -> Tensor:
    """Return (B, 3, S, S), channels last, dtype of `views`: 1 in the boxes, else 0.

    Used as the weight of a lerp, which is exact at both ends and much faster than `where`.
    """
    line = np.arange(views.shape[-1])
    start, length = mix.boxes.T[:2, :, None], mix.boxes.T[2:, :, None]
    lines = upload((line >= start) & (line < start + length), views.device)
    rows, columns = lines.to(views.dtype).unbind()
    # Three channels side by side give long contiguous runs of memory.
    inside: Tensor = rows[:, :, None] * columns.repeat_interleave(3, dim=1)[:, None, :]
    return inside.view(len(rows), len(line), len(line), 3).permute(0, 3, 1, 2)


MIXES: Mapping[str, tuple[Sampler, Applier]] = {
    "none": (_sample_none, _keep),
    "cutmix": (_sample_cutmix, _paste),
    "mixup": (_sample_mixup, _blend),
    "cutout": (_sample_cutout, _fill),
}
