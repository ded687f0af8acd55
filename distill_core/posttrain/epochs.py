"""The views and labels of each epoch: which are read, in what order, and how they are rendered.

Images of one label shard share a view, because a shard is read view by view; a batch mixes shards,
and so views. Every draw is named by (seed, epoch), so it does not depend on what ran before.

Axes: N images, B in a part, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
from torch import Tensor

from distill_core.config.schema import RunConfig
from distill_core.config.students import PosttrainConfig
from distill_core.labels.sources import Labels, LabelSource, Prefetched, StoredLabels
from distill_core.labels.views import LabelView, Renderer
from distill_core.seeds import generator, philox_key
from distill_core.transforms.mixing import has_partners
from distill_core.transforms.pixel_store import Pixels

RENDERED_BYTES = 256 << 20  # that the unmixed views of an epoch may take
EpochLabels = tuple[LabelSource, Sequence[int]]  # a source, and the view of each of its shards


def is_hard(settings: PosttrainConfig, epoch: int) -> bool:
    """Return whether an epoch learns from the classes alone.

    Source: HALD (arXiv:2512.15647), soft, hard, soft.
    """
    first, stop = settings.hard_epochs or (0, 0)
    return first <= epoch < stop


def views_of_epoch(run: RunConfig, epoch: int, *, seed: int, shards: int) -> tuple[int, ...]:
    """Return the view ids that an epoch reads, by image shard.

    Args:
        run: how many views are stored, and in which order they are read.
        epoch: counted from 0.
        seed: of the student.
        shards: image shards of its set.

    Source: LPLD (NeurIPS 2024), a pool of labels drawn from at random. Differs from the published
    code: it draws stored batches, this draws a view for each image shard.
    """
    settings, views = run.posttrain, run.relabel.stored_views
    if is_hard(settings, epoch):
        return (views + epoch,) * shards  # new views: they need no stored labels
    if settings.view_order == "random":
        rng = generator(philox_key(seed, "posttrain", "pool"), epoch)
        return tuple(rng.integers(views, size=shards).tolist())
    first, stop = settings.hard_epochs or (epoch, epoch)
    soft = epoch if epoch < stop else epoch - (stop - first)
    return (soft % views,) * shards


def labels_by_epoch(epochs: Iterable[EpochLabels]) -> Generator[Labels, None, None]:
    """Yield the labels of every epoch; close the generator to stop those being read ahead.

    Stored labels are read an epoch ahead; all others need the device that trains. Two views are in
    memory at most: the one that is trained on, and the one that is being read.

    Args:
        epochs: source and views of each epoch; they are drawn from it an epoch early.
    """
    ahead: Prefetched | None = None
    try:
        for current, following in pairwise(chain(epochs, (None,))):
            assert current is not None
            labels = current[0].view(current[1]) if ahead is None else ahead.finish()
            ahead = None if following is None else _read_ahead(*following)
            yield labels
    finally:
        if ahead is not None:
            ahead.stop()


def _read_ahead(source: LabelSource, view: Sequence[int]) -> Prefetched | None:
    return source.begin(view) if isinstance(source, StoredLabels) else None


@dataclass
class EpochRenderer:
    """Renders epochs of one set of images; keeps its memory from one epoch to the next."""

    pixels: Pixels  # (N, 3, S, S) uint8
    renderer: Renderer
    limit: int = RENDERED_BYTES
    _views: Tensor | None = field(default=None, init=False)

    def parts(self, parts: Sequence[np.ndarray], drawn: LabelView) -> Generator[Tensor, None, None]:
        """Yield the rendered views of each part, in order; close it to stop early.

        A partner is rendered under its own draw, so it looks as in its own place in the epoch:
        where all views fit into `limit`, each is rendered once. Else every part renders its own.

        Args:
            parts: rows of images, (B,) each.
            drawn: draws for all N images.
        """
        if has_partners(self.renderer.kind) and len(parts) > 1:
            rows = self.renderer.needed_rows(np.concatenate(parts), drawn)
            if self.renderer.num_bytes(self.pixels, len(rows)) <= self.limit:
                rendered = self.renderer.render_unmixed(self.pixels, rows, drawn, into=self._views)
                self._views = rendered.views
                yield from (self.renderer.mix_rendered(rendered, part, drawn) for part in parts)
                return
        yield from (self.renderer.render(self.pixels, part, drawn) for part in parts)
