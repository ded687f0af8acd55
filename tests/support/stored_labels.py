"""Labels of ragged shards in every scheme and under every kind of view."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from distill_core.config.fields import Precision
from distill_core.config.students import RelabelConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import OnlineLabels, StoredLabels
from distill_core.models.ensemble import Ensemble, as_ensemble
from distill_core.models.teacher import FrozenTeacher
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from tests.support.tiny import pixels, tiny_batch, tiny_run, tiny_teacher

SHARDS = [tiny_batch(0) + tiny_batch(1), tiny_batch(2), tiny_batch(3, classes=3)]
COUNT = sum(map(len, SHARDS))
VIEWS = range(2, 5)


@dataclass(frozen=True)
class Scheme:
    """A label scheme, and the tolerance between its logits and those of the teacher."""

    settings: tuple[str, ...]
    tolerance: float  # of a logit, beside the precision's own
    k: int | None = None  # logits that are kept; the others are compared with their mean

    def of(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what may be expected of exact logits."""
        if self.k is None:
            return logits
        ordered = logits.argsort(1, descending=True)
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ordered[:, : self.k], True)
        left = logits.gather(1, ordered[:, self.k :]).mean(1, keepdim=True)
        return torch.where(kept, logits, left)


SCHEMES = {
    "features": Scheme(("scheme=features",), 0.02),
    "features_4_bit": Scheme(("scheme=features", "bits=4"), 0.2),
    "logits": Scheme(("scheme=logits",), 0.002),
    "topk": Scheme(("scheme=topk", "topk=3"), 0.002, k=3),
    "all_of_topk": Scheme(("scheme=topk", "topk=4"), 0.002, k=4),
}
KINDS = {
    "plain": ("crop=null", "flip=false", "mix.kind=none"),
    "weak_crop": ("crop=[0.5, 1.0]", "flip=true", "mix.kind=none"),
    "cutmix": ("crop=[0.08, 1.0]", "flip=true", "mix.kind=cutmix"),
    "mixup": ("flip=true", "mix={kind: mixup, alpha: 0.8}"),
    "cutout": ("mix.kind=cutout",),
    "patches": ("patches=2", "flip=true", "mix.kind=cutmix"),
    "rand_augment": ("rand_augment={operations: 2, magnitude: 6, spread: 1}", "mix.kind=cutmix"),
    "everything": (
        "rand_augment={operations: 3, magnitude: 9}",
        "patches=4",
        "flip=true",
        "mix.kind=mixup",
    ),
    "pooled": ("batch_statistics=3", "mix.kind=cutmix"),
    "ensemble": ("flip=true", "mix.kind=cutmix"),  # of two teachers
}


def settings(scheme: str, kind: str) -> RelabelConfig:
    chosen = (*SCHEMES[scheme].settings, *KINDS[kind])
    return tiny_run(*(f"relabel.{setting}" for setting in chosen)).relabel


def shard(number: int) -> ImageRows:
    images = SHARDS[number]
    return ImageRows(images, pixels(len(images), seed=number))


def teacher_of(kind: str, precision: Precision = "float32") -> FrozenTeacher | Ensemble:
    """Return who labels the views of a kind."""
    count = 2 if kind == "ensemble" else 1
    return as_ensemble([tiny_teacher(precision, seed=seed) for seed in range(count)])


def labelled(
    number: int, scheme: str, kind: str, views: Any = VIEWS, precision: Precision = "float32"
) -> LabelRows:
    config, teacher = settings(scheme, kind), teacher_of(kind, precision)
    return relabel_shard(shard(number), views, config=config, teacher=teacher, seed=0)


def stored(scheme: str, kind: str, precision: Precision = "float32") -> StoredLabels:
    head = teacher_of(kind, precision).head
    files = [
        encode_labels(labelled(n, scheme, kind, precision=precision)) for n in range(len(SHARDS))
    ]
    readers = [lambda view, data=data: decode_labels(data, [view]) for data in files]
    counts = [len(images) for images in SHARDS]
    return StoredLabels(readers, counts, (head.weight, head.bias), "cpu", rest="mean")


def online(scheme: str, kind: str, precision: Precision = "float32") -> OnlineLabels:
    parts = [(shard(n).images, torch.from_numpy(shard(n).pixels)) for n in range(len(SHARDS))]
    return OnlineLabels(parts, teacher_of(kind, precision), settings(scheme, kind), 0)


def arrays(value: Any) -> list[np.ndarray]:
    """Return all arrays of a draw or of label rows, by their order."""
    if isinstance(value, np.ndarray):
        return [value]
    if hasattr(value, "__dataclass_fields__"):
        return [a for field in fields(value) for a in arrays(getattr(value, field.name))]
    return []


def same(one: Any, other: Any) -> bool:
    first, second = arrays(one), arrays(other)
    return len(first) == len(second) > 0 and all(map(np.array_equal, first, second))
