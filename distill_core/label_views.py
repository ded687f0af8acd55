"""The views that teachers describe and students learn from: one draw, one renderer, two users.

Draws are named by (run seed, images of the shard, view id), so stored labels and labels computed
again later are the same labels. Axes: N images of a shard, B rows of it, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.fields import Triple
from distill_core.config.students import RelabelConfig
from distill_core.mixing import Mix, apply_mix, has_partners, sample_mix
from distill_core.plan import ImageId
from distill_core.seeds import generator, philox_key
from distill_core.views import View, apply_view, sample_view


@dataclass(frozen=True, slots=True)
class LabelView:
    """The draws of one view id for every image of a shard, or of several."""

    view: View
    mix: Mix  # partners are rows of the same images
    order: np.ndarray | None = None  # (N,) which images pool their statistics, group by group


def sample_label_view(
    seed: int, images: tuple[ImageId, ...], view: int, config: RelabelConfig, *, side: int
) -> LabelView:
    """Draw one view of every image of a shard.

    Args:
        seed: the run's seed.
        images: the N images of the shard, in storage order.
        view: view id; the counter of the draws.
        config: crop, flip and mix; whether images pool their statistics.
        side: of the stored images and of the views, in pixels.
    """
    rng = generator(philox_key(seed, "relabel", "views", images), view)
    drawn = sample_view(rng, count=len(images), side=side, scale=config.crop, flip=config.flip)
    mix = sample_mix(rng, config.mix, count=len(images), side=side)
    pooled = config.batch_statistics is not None
    return LabelView(drawn, mix, rng.permutation(len(images)) if pooled else None)


def render(
    pixels: Tensor,
    rows: np.ndarray,
    drawn: LabelView,
    *,
    kind: str,
    mean: Triple,
    std: Triple,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Show some rows as a view: crop, flip, mix, normalise.

    Args:
        pixels: (N, 3, S, S) uint8, all images that can be partners.
        rows: (B,) which images to show.
        drawn: draws for all N images.
        kind: of the mix.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        dtype: of the result.

    Returns:
        (B, 3, S, S) normalised, on the device of `pixels`, channels last.
    """
    mix = drawn.mix.rows(rows)
    views = _show(pixels, rows, drawn.view, dtype)
    partners = _show(pixels, mix.partners, drawn.view, dtype) if has_partners(kind) else views
    mean_, std_ = (torch.tensor(v, dtype=dtype).to(views).view(1, 3, 1, 1) for v in (mean, std))
    mixed = (apply_mix(kind, views, partners, mix) - mean_) / std_
    return mixed.contiguous(memory_format=torch.channels_last)


def _show(pixels: Tensor, rows: np.ndarray, view: View, dtype: torch.dtype) -> Tensor:
    """Return the rows under their own crops and flips, (B, 3, S, S) in [0, 1]."""
    chosen = pixels[torch.from_numpy(rows.astype(np.int64)).to(pixels.device)].to(dtype) / 255
    return apply_view(chosen, view.rows(rows), out=pixels.shape[-1])
