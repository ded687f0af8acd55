"""The views of labels: their draws, and their rendering for teachers and students alike.

Draws are named by (run seed, images of the shard, view id), so stored labels and labels computed
again later are the same labels. Axes: N images of a shard, B rows of it, S side in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from distill_core.config.fields import Triple
from distill_core.config.students import RelabelConfig
from distill_core.seeds import generator, philox_key
from distill_core.sharding import ImageId
from distill_core.transforms.crops import crop_dtype, crop_pixels
from distill_core.transforms.mixing import Mix, apply_mix, has_partners, sample_mix
from distill_core.transforms.patch_shuffle import apply_patches, sample_patches
from distill_core.transforms.pixel_store import Pixels, take
from distill_core.transforms.rand_augment import Operations, apply_operations, sample_operations
from distill_core.transforms.upload import constant, upload
from distill_core.transforms.views import View, sample_view

BLOCK, GPU_BLOCK = 1 << 18, 1 << 27  # values of the images that are rendered at once


@dataclass(frozen=True, slots=True)
class LabelView:
    """The draws of one view id for every image of a shard, or of several."""

    view: View
    mix: Mix  # partners are rows of the same images
    order: np.ndarray | None = None  # (N,) which images pool their statistics, group by group
    patches: np.ndarray | None = None  # (N, 2, G) uint8, see `patches`
    operations: Operations | None = None  # on the stored pixels, before all else


def sample_label_view(
    seed: int, images: tuple[ImageId, ...], view: int, config: RelabelConfig, *, side: int
) -> LabelView:
    """Draw one view of every image of a shard.

    Args:
        seed: the run's seed.
        images: the N images of the shard, in storage order.
        view: view id; the counter of the draws.
        config: operations, patches, crop, flip and mix; whether images pool their statistics.
        side: of the stored images and of the views, in pixels.
    """

    def draws(purpose: str) -> np.random.Generator:
        return generator(philox_key(seed, "relabel", purpose, images), view)

    rng, count, augment, grid = draws("views"), len(images), config.rand_augment, config.patches
    drawn = sample_view(rng, count=count, side=side, scale=config.crop, flip=config.flip)
    mix = sample_mix(rng, config.mix, count=count, side=side)
    return LabelView(
        drawn,
        mix,
        None if config.batch_statistics is None else rng.permutation(count),
        None if grid is None else sample_patches(draws("patches"), count=count, grid=grid),
        None if augment is None else sample_operations(draws("operations"), augment, count=count),
    )


@dataclass(frozen=True)
class RenderedViews:
    """Some rows as they were drawn, not yet mixed."""

    rows: np.ndarray  # (n,) ascending
    views: Tensor  # (n, S, S, 3) levels from 0 to 255, see `crops`

    def take(self, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Return (B, 3, S, S) levels, channels last, of rows that are among these."""
        places = upload(np.searchsorted(self.rows, rows), self.views.device)
        return self.views.index_select(0, places).to(dtype).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Renderer:
    """Renders views: operations, patches, crop, flip, mix, normalise.

    One renderer serves the teacher and the student. It works through blocks of images that stay in
    a cache, and renders an image that is needed twice, as itself and as a partner, once.
    """

    kind: str  # of the mix
    mean: Triple  # per channel, of pixels in [0, 1]; also the colour of what moves in from outside
    std: Triple
    dtype: torch.dtype = torch.float32  # of the result

    def needed_rows(self, rows: np.ndarray, drawn: LabelView) -> np.ndarray:
        """Return the images that some views consist of: rows and their partners, ascending."""
        return np.unique([rows, drawn.mix.partners[rows]] if has_partners(self.kind) else rows)

    def render(self, pixels: Pixels, rows: np.ndarray, drawn: LabelView) -> Tensor:
        """Render the views of some rows.

        Args:
            pixels: (N, 3, S, S) uint8, all images that can be partners.
            rows: (B,) which images.
            drawn: draws for all N images.

        Returns:
            (B, 3, S, S) normalised, on the device of `pixels`, channels last.
        """
        return self.mix_rendered(
            self.render_unmixed(pixels, self.needed_rows(rows, drawn), drawn), rows, drawn
        )

    def num_bytes(self, pixels: Pixels, count: int) -> int:
        """Return how many bytes `count` unmixed views of such pixels take."""
        kept = crop_dtype(pixels.shape[-1], self.dtype)
        return count * math.prod(pixels.shape[1:]) * kept.itemsize

    def render_unmixed(
        self,
        pixels: Pixels,
        rows: np.ndarray,
        drawn: LabelView,
        *,
        into: Tensor | None = None,
    ) -> RenderedViews:
        """Render (n,) ascending rows of (N, 3, S, S) uint8 pixels, unmixed.

        Args:
            pixels: all images.
            rows: which images.
            drawn: draws for all N images.
            into: views that are no longer needed, whose memory is used again if it fits.
        """
        side = pixels.shape[-1]
        views = into
        if views is None or len(views) != len(rows):
            kept = crop_dtype(side, self.dtype)
            views = torch.empty(len(rows), side, side, 3, dtype=kept, device=pixels.device)
        for part in blocks(len(rows), pixels):
            views[part] = self._cropped(pixels, rows[part], drawn).permute(0, 2, 3, 1)
        return RenderedViews(rows, views)

    def mix_rendered(self, rendered: RenderedViews, rows: np.ndarray, drawn: LabelView) -> Tensor:
        """Return the views of (B,) rows from rendered ones, as `render` does."""
        side = rendered.views.shape[1]
        out = rendered.views.new_empty(len(rows), side, 3 * side, dtype=self.dtype)
        scale, offset = self._normalising(side, out)
        for part in blocks(len(rows), rendered.views):
            mix = drawn.mix.rows(rows[part])
            mix = replace(mix, colours=mix.colours * 255)
            views = rendered.take(rows[part], self.dtype)
            partners = rendered.take(mix.partners, self.dtype) if has_partners(self.kind) else views
            mix_rendered = apply_mix(self.kind, views, partners, mix).permute(0, 2, 3, 1).flatten(2)
            torch.addcmul(offset, mix_rendered, scale, out=out[part])
        return out.view(-1, side, side, 3).permute(0, 3, 1, 2)

    def _normalising(self, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and offset of levels, for a line of pixels of three channels."""
        scale = [1 / (255 * std) for std in self.std] * side
        offset = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)] * side
        return constant(scale, like), constant(offset, like)

    def _cropped(self, pixels: Pixels, rows: np.ndarray, drawn: LabelView) -> Tensor:
        chosen = take(pixels, rows)
        if drawn.operations is not None:
            chosen = apply_operations(chosen, drawn.operations.rows(rows), fill=self.mean)
        if drawn.patches is not None:
            chosen = apply_patches(chosen, drawn.patches[rows])
        return crop_pixels(chosen, drawn.view.rows(rows), dtype=self.dtype)


def blocks(count: int, images: Pixels) -> list[slice]:
    """Cut `count` images like these into slices that stay in a cache; on a GPU, in memory."""
    limit = BLOCK if images.device.type == "cpu" else GPU_BLOCK
    parts = -(-count * math.prod(images.shape[1:]) // limit)
    size = -(-count // max(1, min(parts, count)))
    return [slice(start, start + size) for start in range(0, count, size or 1)]
