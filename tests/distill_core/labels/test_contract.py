"""What holds for every label scheme under every kind of view.

Shards are ragged: of eight, four and three images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.config.fields import Precision
from distill_core.config.students import RelabelConfig
from distill_core.errors import DataError
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import Labels, OnlineLabels, StoredLabels
from distill_core.labels.views import LabelView, Renderer
from distill_core.models.ensemble import Ensemble, as_ensemble
from distill_core.models.teacher import FrozenTeacher
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from tests.golden.numbers import pixels
from tests.support.tiny import MEAN, STD, tiny_batch, tiny_run, tiny_teacher

SHARDS = [tiny_batch(0) + tiny_batch(1), tiny_batch(2), tiny_batch(3, classes=3)]
COUNT = sum(map(len, SHARDS))
VIEWS = range(2, 5)


@dataclass(frozen=True)
class Scheme:
    """How labels are stored, and how far what is read may be from what the teacher says."""

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
PRECISIONS: Mapping[Precision, float] = {"float32": 1e-4, "bfloat16": 0.03}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_kind = pytest.mark.parametrize("kind", KINDS)


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
    return relabel_shard(shard(number), views, config=config, teacher=teacher, seed=0, device="cpu")


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


def without_pools(drawn: LabelView) -> list[np.ndarray]:
    """Return what a student needs of a draw; who pooled statistics with whom is no part of it."""
    return arrays(LabelView(drawn.view, drawn.mix, None, drawn.patches, drawn.operations))


@every_kind
@every_scheme
def test_a_shard_comes_back_as_it_was_stored(scheme: str, kind: str) -> None:
    for number in range(len(SHARDS)):
        rows = labelled(number, scheme, kind)
        back = decode_labels(encode_labels(rows))
        assert same(back, rows)
        assert back.scheme == rows.scheme
        assert (back.images, [*back.views]) == (SHARDS[number], [*VIEWS])


@every_kind
@every_scheme
def test_stored_labels_are_what_the_teacher_says_of_the_same_view(scheme: str, kind: str) -> None:
    kept, asked, rows = stored(scheme, kind), online(scheme, kind), np.array([14, 0, 9, 3])
    for view in (4, 2):
        one, other = kept.view(view), asked.view(view)
        drawn = zip(without_pools(one.drawn), without_pools(other.drawn), strict=True)
        assert all(np.array_equal(*pair) for pair in drawn)
        assert gap(scheme, one, other, rows) <= SCHEMES[scheme].tolerance


def gap(scheme: str, kept: Labels, asked: Labels, rows: np.ndarray) -> float:
    """Return the largest difference of a logit from what the scheme promises."""
    expected = SCHEMES[scheme].of(asked.logits(rows))
    return float((kept.logits(rows) - expected).abs().max())


@pytest.mark.parametrize("precision", PRECISIONS)
@every_scheme
def test_labels_hold_in_every_precision(scheme: str, precision: Precision) -> None:
    kept, exact = stored(scheme, "cutmix", precision), online(scheme, "cutmix")
    allowed = SCHEMES[scheme].tolerance + PRECISIONS[precision]
    assert gap(scheme, kept.view(3), exact.view(3), np.arange(COUNT)) <= allowed


@every_kind
@every_scheme
def test_a_label_depends_on_no_other_view_shard_or_order(scheme: str, kind: str) -> None:
    whole, rows = stored(scheme, kind), np.arange(COUNT)
    before = whole.view(3).logits(rows)
    whole.view(4), whole.view(2)
    labels = whole.view(3)
    order = np.random.default_rng(0).permutation(COUNT)
    for batch in np.array_split(order, 4):
        torch.testing.assert_close(labels.logits(batch), before[batch], rtol=0, atol=1e-6)
    alone = labelled(1, scheme, kind, views=[3])
    together = decode_labels(encode_labels(labelled(1, scheme, kind)), [3])
    assert same(alone.boxes, together.boxes)
    assert same(alone.partners, together.partners)


# Pooled labels depend on the images beside: no single view says what their teacher saw.
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"pooled"}))
def test_the_student_sees_what_the_teacher_saw(kind: str) -> None:
    labels, teacher, rows = stored("logits", kind).view(3), teacher_of(kind), np.array([12, 9, 2])
    together = torch.from_numpy(np.concatenate([shard(n).pixels for n in range(len(SHARDS))]))
    mix = settings("logits", kind).mix.kind
    seen = Renderer(mix, MEAN, STD).render(together, rows, labels.drawn)
    torch.testing.assert_close(teacher(seen).logits, labels.logits(rows), atol=2e-3, rtol=2e-3)


@every_scheme
def test_shards_of_different_views_meet_in_one_batch(scheme: str) -> None:
    labels, rows = stored(scheme, "cutmix"), np.arange(COUNT)
    mixed, alone = labels.view((4, 2, 3)), {view: labels.view(view) for view in VIEWS}
    ends = np.cumsum([len(images) for images in SHARDS])
    for view, part in zip((4, 2, 3), np.split(rows, ends[:-1]), strict=True):
        assert torch.equal(mixed.logits(part), alone[view].logits(part))


@every_scheme
def test_a_cut_off_file_and_a_view_that_is_missing_are_refused(scheme: str) -> None:
    data = encode_labels(labelled(0, scheme, "everything"))
    with pytest.raises(DataError, match="no view 5"):
        decode_labels(data, [5])
    for size in (len(data) - 1, len(data) // 2):
        with pytest.raises(DataError):
            decode_labels(data[:size])


@every_scheme
def test_a_flipped_bit_never_changes_a_label(scheme: str) -> None:
    rows = labelled(0, scheme, "everything")
    data, refused = encode_labels(rows), 0
    footer = len(data) - int.from_bytes(data[-8:-4], "little") - 8
    positions = range(4, footer, 61)
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 16
        try:
            back = decode_labels(bytes(damaged))
        except DataError:
            refused += 1
        else:  # a column that this reader does not need, or a page header's statistics
            assert same(back, rows)
    assert refused > len(positions) / 2
