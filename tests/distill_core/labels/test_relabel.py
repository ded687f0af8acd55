"""Labels depend on image and view only: equal when stored or computed online, in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.config.students import RelabelConfig
from distill_core.errors import DataError, DivergedError
from distill_core.labels.predict import predict_view
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import OnlineLabels, StoredLabels, ViewsOnly
from distill_core.labels.views import Renderer, sample_label_view
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from tests.support.label_definitions import dequantise
from tests.support.tiny import MEAN, SIDE, STD, pixels, tiny_batch, tiny_run, tiny_teacher

SHARDS = [tiny_batch(0) + tiny_batch(1), tiny_batch(2)]
VIEWS = range(3, 9)


def settings(scheme: str, mix: str = "cutmix") -> RelabelConfig:
    return tiny_run(
        f"relabel.scheme={scheme}", f"relabel.mix.kind={mix}", "relabel.flip=true"
    ).relabel


def shard(number: int) -> ImageRows:
    images = SHARDS[number]
    return ImageRows(images, pixels(len(images), seed=number))


def stored(number: int, scheme: str, mix: str = "cutmix") -> LabelRows:
    rows = relabel_shard(
        shard(number),
        VIEWS,
        config=settings(scheme, mix),
        teacher=tiny_teacher(),
        seed=0,
    )
    return decode_labels(encode_labels(rows))


def online(mix: str = "cutmix") -> OnlineLabels:
    parts = [(shard(n).images, torch.from_numpy(shard(n).pixels)) for n in range(2)]
    return OnlineLabels(parts, tiny_teacher(), settings("online", mix), 0)


def from_storage(scheme: str, mix: str = "cutmix") -> StoredLabels:
    teacher = tiny_teacher()
    every = [encode_labels(stored(n, scheme, mix)) for n in range(2)]
    readers = [lambda view, data=data: decode_labels(data, [view]) for data in every]
    counts = [len(images) for images in SHARDS]
    return StoredLabels(readers, counts, (teacher.head.weight, teacher.head.bias), "cpu")


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup", "cutout"])
@pytest.mark.parametrize(("scheme", "tolerance"), [("logits", 1e-3), ("features", 2e-2)])
def test_stored_and_online_labels_are_the_same_labels(
    scheme: str, tolerance: float, mix: str
) -> None:
    rows = np.array([11, 0, 5, 8])
    for view in (3, 8):
        kept, asked = from_storage(scheme, mix).view(view), online(mix).view(view)
        assert np.array_equal(kept.drawn.view.boxes, asked.drawn.view.boxes)
        assert np.array_equal(kept.drawn.mix.partners, asked.drawn.mix.partners)
        torch.testing.assert_close(
            kept.logits(rows), asked.logits(rows), atol=tolerance, rtol=tolerance
        )


def test_partners_stay_inside_their_shard() -> None:
    partners = online().view(4).drawn.mix.partners
    assert sorted(partners[:8]) == list(range(8))
    assert sorted(partners[8:]) == list(range(8, 12))


def test_the_student_gets_exactly_the_views_that_the_teacher_labelled() -> None:
    teacher, labels = tiny_teacher(), online().view(5)
    together = torch.from_numpy(np.concatenate([shard(0).pixels, shard(1).pixels]))
    rows = np.array([9, 2])
    seen = Renderer("cutmix", MEAN, STD).render(together, rows, labels.drawn)
    torch.testing.assert_close(teacher(seen).logits, labels.logits(rows), atol=1e-4, rtol=1e-4)


def test_labels_do_not_depend_on_other_shards_or_on_the_range_of_views() -> None:
    alone = relabel_shard(
        shard(0),
        [7],
        config=settings("logits"),
        teacher=tiny_teacher(),
        seed=0,
    )
    assert alone.values is not None
    kept = stored(0, "logits").values
    assert kept is not None
    assert np.array_equal(alone.values[0], kept[VIEWS.index(7)])


def test_features_become_the_teachers_logits() -> None:
    teacher, rows = tiny_teacher(), stored(0, "features")
    assert rows.values is not None
    assert rows.affine is not None
    drawn = sample_label_view(0, rows.images, VIEWS[0], settings("features"), side=SIDE)
    said = predict_view(teacher, torch.from_numpy(shard(0).pixels), drawn, settings("features"))
    features = torch.from_numpy(np.asarray(dequantise(rows.values[0], rows.affine)))
    torch.testing.assert_close(features, said.features, atol=0.02, rtol=0.02)


def test_online_stores_views_without_values() -> None:
    rows = stored(0, "online")
    assert rows.values is None
    assert rows.boxes.shape == (len(VIEWS), 8, 4)


def test_online_labels_are_never_read_from_a_shard() -> None:
    head = tiny_teacher().head
    labels = StoredLabels([lambda view: stored(0, "online")], [8], (head.weight, head.bias), "cpu")
    with pytest.raises(DataError, match="scheme online stores nothing"):
        labels.view(VIEWS[0])


@pytest.mark.parametrize(
    ("bias", "message"), [(1e5, "set relabel.scheme to features"), (float("nan"), "not finite")]
)
def test_logits_that_float16_cannot_hold_are_refused(bias: float, message: str) -> None:
    teacher = tiny_teacher()
    teacher.head.bias[1] = bias
    with pytest.raises(DivergedError, match=f"(?i){message}"):
        relabel_shard(shard(0), [0], config=settings("logits"), teacher=teacher, seed=0)


@pytest.mark.parametrize("scheme", ["features", "logits", "topk"])
def test_logits_that_are_not_finite_are_refused_under_every_scheme(scheme: str) -> None:
    teacher = tiny_teacher()
    next(teacher.backbone.parameters()).data.fill_(float("nan"))
    kept = ["relabel.topk=2"] if scheme == "topk" else []
    config = tiny_run(f"relabel.scheme={scheme}", *kept).relabel
    with pytest.raises(DivergedError, match=r"relabel: .*finite"):
        relabel_shard(shard(0), [0], config=config, teacher=teacher, seed=0)


def test_auto_chooses_the_smaller_scheme_for_the_teacher() -> None:
    assert stored(0, "auto").scheme == "features"  # 8 features against 4 classes in fp16


def test_hard_labels_are_made_without_a_teacher() -> None:
    images: list[tuple[ImageId, ...]] = [tuple(part) for part in SHARDS]
    labels = ViewsOnly(images, settings("features"), 0, SIDE).view(3)
    assert np.array_equal(labels.drawn.view.boxes, online().view(3).drawn.view.boxes)
    with pytest.raises(DataError, match="hard labels"):
        labels.logits(np.array([0]))


def test_pooled_labels_are_those_of_a_network_in_training_mode_group_by_group() -> None:
    config = settings("online").model_copy(update={"batch_statistics": 3})
    rows, teacher = shard(0), tiny_teacher()
    drawn = sample_label_view(0, rows.images, 4, config, side=SIDE)
    assert drawn.order is not None
    tensor = torch.from_numpy(rows.pixels)
    said = predict_view(teacher, tensor, drawn, config).logits
    groups = np.array_split(drawn.order, 3)  # 8 images, three at most
    for group in groups:
        views = Renderer("cutmix", MEAN, STD).render(tensor, group, drawn)
        alone = teacher(views, pooled=True).logits
        torch.testing.assert_close(said[group], alone)
        assert not torch.allclose(alone, teacher(views).logits, atol=1e-3)


def test_pooling_changes_no_statistics_and_no_other_draw() -> None:
    config = settings("features")
    pooled = config.model_copy(update={"batch_statistics": 4})
    teacher, rows = tiny_teacher(), shard(0)
    before = [value.clone() for value in teacher.state_dict().values()]
    plain, mixed = (
        relabel_shard(rows, VIEWS, config=c, teacher=teacher, seed=0) for c in (config, pooled)
    )
    assert all(map(torch.equal, before, teacher.state_dict().values()))
    assert np.array_equal(plain.boxes, mixed.boxes)
    assert np.array_equal(plain.partners, mixed.partners)
    assert not np.array_equal(plain.values, mixed.values)


def test_cutting_forward_passes_changes_no_draw_and_no_label_beyond_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    teacher, config, rows = tiny_teacher(), settings("logits"), shard(0)
    teacher.register_forward_pre_hook(lambda _, seen: sizes.append(len(seen[0])))
    monkeypatch.setattr("distill_core.labels.predict.FORWARD_BATCH", 8)

    def labels(parts: int) -> LabelRows:
        return relabel_shard(rows, [3], config=config, teacher=teacher, seed=0, parts=parts)

    whole, cut = labels(1), labels(2)
    assert sizes == [8, 4, 4]
    assert np.array_equal(whole.boxes, cut.boxes)
    assert whole.values is not None
    assert cut.values is not None
    np.testing.assert_allclose(whole.values, cut.values, rtol=2e-3)  # fp16 as stored
