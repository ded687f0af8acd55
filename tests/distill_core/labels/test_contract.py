"""Properties of every label scheme under every kind of view.

Shards are ragged: of eight, four and three images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from distill_core.config.fields import Precision
from distill_core.errors import DataError
from distill_core.labels.sources import Labels
from distill_core.labels.views import LabelView, Renderer
from distill_core.storage.label_shards import decode_labels, encode_labels
from tests.support.damage import flip_bits
from tests.support.stored_labels import (
    COUNT,
    KINDS,
    SCHEMES,
    SHARDS,
    VIEWS,
    arrays,
    labelled,
    online,
    same,
    settings,
    shard,
    stored,
    teacher_of,
)
from tests.support.tiny import MEAN, STD

PRECISIONS: Mapping[Precision, float] = {"float32": 1e-4, "bfloat16": 0.03}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_kind = pytest.mark.parametrize("kind", KINDS)


def without_pools(drawn: LabelView) -> list[np.ndarray]:
    """Return what a student needs of a draw; who pooled statistics with whom is no part of it."""
    return arrays(LabelView(drawn.view, drawn.mix, None, drawn.patches, drawn.operations))


@every_kind
@every_scheme
def test_labels_are_unchanged_by_storing_and_loading(scheme: str, kind: str) -> None:
    for number in range(len(SHARDS)):
        rows = labelled(number, scheme, kind)
        back = decode_labels(encode_labels(rows))
        assert same(back, rows)
        assert back.scheme == rows.scheme
        assert (back.images, [*back.views]) == (SHARDS[number], [*VIEWS])


@every_kind
@every_scheme
def test_stored_labels_equal_the_teachers_logits_of_the_same_view(scheme: str, kind: str) -> None:
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
def test_stored_and_online_labels_agree_in_every_precision(
    scheme: str, precision: Precision
) -> None:
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
def test_the_student_gets_the_views_that_the_teacher_labelled(kind: str) -> None:
    labels, teacher, rows = stored("logits", kind).view(3), teacher_of(kind), np.array([12, 9, 2])
    together = torch.from_numpy(np.concatenate([shard(n).pixels for n in range(len(SHARDS))]))
    mix = settings("logits", kind).mix.kind
    seen = Renderer(mix, MEAN, STD).render(together, rows, labels.drawn)
    torch.testing.assert_close(teacher(seen).logits, labels.logits(rows), atol=2e-3, rtol=2e-3)


@every_scheme
def test_one_batch_may_hold_shards_in_different_views(scheme: str) -> None:
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
    flip_bits(encode_labels(rows), lambda data: same(decode_labels(data), rows), every=61)
