"""The sources of a student's labels: stored shards, the teacher itself, or none.

The images of several shards follow one another; a row is a position among all of them, and
partners, which are rows of one shard in storage, become such rows too.
Axes: N images of all shards, B rows of a batch, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from distill_core.config.students import RelabelConfig, Rest
from distill_core.errors import DataError
from distill_core.labels.decoding import CodedFeatures, HalfLogits, Head, KeptLogits
from distill_core.labels.predict import predict_view
from distill_core.labels.reading import ParallelReads, ViewBuffer, ViewReader
from distill_core.labels.views import LabelView, sample_label_view
from distill_core.models.ensemble import Ensemble
from distill_core.models.teacher import FrozenTeacher
from distill_core.sharding import ImageId
from distill_core.transforms.mixing import Mix
from distill_core.transforms.pixel_store import Pixels
from distill_core.transforms.rand_augment import Operations
from distill_core.transforms.upload import upload
from distill_core.transforms.views import View


@dataclass(frozen=True)
class Labels:
    """One view of all N images, and the teacher's logits of any rows of it."""

    drawn: LabelView
    logits: Callable[[np.ndarray], Tensor]  # (B,) rows -> (B, C) logits


@dataclass(frozen=True)
class Prefetched:
    """Labels that are being read."""

    finish: Callable[[], Labels]  # waits for them; raises the error of a read that failed
    stop: Callable[[], None]  # discards them; no thread is left running


class LabelSource(Protocol):
    """Labels by view; any batch size and order can read them."""

    @property
    def shards(self) -> Sequence[Any]:
        """Return one entry per image shard."""

    def view(self, view: int | Sequence[int]) -> Labels:
        """Return the labels of one view of every image; one for all shards, or one for each."""


@dataclass(frozen=True)
class StoredLabels:
    """Labels from label shards, one view in memory at a time.

    A view of features holds N * D * bits / 8 bytes of codes, below 100 bytes of draws per image and
    8 * D bytes per shard; while it is read, one row group per reader as well. Beside that, each
    reader keeps the footers of its files.
    """

    shards: Sequence[ViewReader]  # by image shard
    counts: Sequence[int]  # images of each image shard
    head: tuple[Tensor, Tensor]  # (C, D) weight and (C,) bias of the teacher
    device: str | torch.device
    rest: Rest = "none"  # of top-k labels
    half: bool = False  # whether features are multiplied by the head in bfloat16

    def view(self, view: int | Sequence[int]) -> Labels:
        """Read one row group of every shard."""
        return self.begin(view).finish()

    def begin(self, view: int | Sequence[int]) -> Prefetched:
        """Start to read a view in the background."""
        buffer = ViewBuffer(self.counts)

        def read(shard: int, view: int) -> None:
            buffer.put(shard, self.shards[shard](view))

        views = by_shard(view, len(self.shards))
        reading = ParallelReads([partial(read, *pair) for pair in enumerate(views)])

        def finish() -> Labels:
            reading.wait()
            return Labels(buffer.drawn(), self._decoder(buffer))

        return Prefetched(finish, reading.stop)

    def _decoder(self, buffer: ViewBuffer) -> Callable[[np.ndarray], Tensor]:
        """Return logits by row."""
        arrays, device = buffer.arrays, torch.device(self.device)
        if "logits" in arrays:
            return HalfLogits(arrays["logits"], device)
        weight, bias = (part.to(device) for part in self.head)
        if "topk" in arrays:
            kept, ids, others = (arrays[name] for name in ("topk", "ids", "rest"))
            return KeptLogits(kept, ids, others, len(bias), self.rest, device)
        scale, offset, bits = buffer.affine()
        head = Head(weight.bfloat16() if self.half else weight, bias)
        steps, starts = (upload(part, device) for part in (scale, offset))
        return CodedFeatures(arrays["features"], buffer.owners(), steps, starts, bits, head)


@dataclass(frozen=True)
class OnlineLabels:
    """Labels that are computed when they are needed, from the same draws as stored ones."""

    shards: Sequence[tuple[tuple[ImageId, ...], Pixels]]  # per shard: names, (n, 3, S, S) uint8
    teacher: FrozenTeacher | Ensemble
    config: RelabelConfig
    seed: int

    def view(self, view: int | Sequence[int]) -> Labels:
        """Compute the labels of one view of every image."""
        views = by_shard(view, len(self.shards))
        drawn = [self._draw(s[0], v) for s, v in zip(self.shards, views, strict=True)]
        # Features, not logits: at 21,841 classes the logits of a view would fill the memory.
        features = torch.cat(
            [
                predict_view(self.teacher, pixels, draw, self.config).features
                for (_, pixels), draw in zip(self.shards, drawn, strict=True)
            ]
        )

        @torch.no_grad()
        def logits(rows: np.ndarray) -> Tensor:
            chosen: Tensor = self.teacher.head(features[upload(rows, features.device)])
            return chosen

        return Labels(concatenate(drawn), logits)

    def _draw(self, images: tuple[ImageId, ...], view: int) -> LabelView:
        side = self.teacher.spec.side
        return sample_label_view(self.seed, images, view, self.config, side=side)


@dataclass(frozen=True)
class ViewsOnly:
    """The same views without any teacher, for students that learn from hard labels."""

    shards: Sequence[tuple[ImageId, ...]]
    config: RelabelConfig
    seed: int
    side: int

    def view(self, view: int | Sequence[int]) -> Labels:
        """Draw one view of every image."""
        pairs = zip(self.shards, by_shard(view, len(self.shards)), strict=True)
        drawn = [
            sample_label_view(self.seed, images, view_id, self.config, side=self.side)
            for images, view_id in pairs
        ]
        return Labels(concatenate(drawn), _no_logits)


def by_shard(view: int | Sequence[int], shards: int) -> Sequence[int]:
    """Return the view of each shard."""
    return (view,) * shards if isinstance(view, int) else view


def concatenate(drawn: Sequence[LabelView]) -> LabelView:
    """Join the draws of several shards; partners become rows among all images."""
    sizes = [len(draw.view.boxes) for draw in drawn]
    offsets = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    mixes = [draw.mix for draw in drawn]
    partners = [mix.partners + offset for mix, offset in zip(mixes, offsets, strict=True)]
    operations = [draw.operations for draw in drawn if draw.operations is not None]
    patches = [draw.patches for draw in drawn if draw.patches is not None]
    return LabelView(
        View(**_joined([draw.view for draw in drawn])),
        Mix(**_joined(mixes) | {"partners": np.concatenate(partners)}),
        patches=np.concatenate(patches) if patches else None,
        operations=Operations(**_joined(operations)) if operations else None,
    )


def _joined(parts: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return every field of some dataclasses of arrays, one after another."""
    names = [field.name for field in fields(parts[0])]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def _no_logits(rows: np.ndarray) -> Tensor:
    raise DataError("hard labels: these views have no logits. Use a label source with a teacher.")
