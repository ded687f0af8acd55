"""Views, labels and their codecs on a GPU that computes no values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from distill_core.config.fields import Precision
from distill_core.labels import relabel
from distill_core.labels.reading import memory_reader
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import LabelSource, OnlineLabels, StoredLabels
from distill_core.labels.views import Renderer, sample_label_view
from distill_core.models.ensemble import Ensemble, as_ensemble
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from distill_core.transforms.pixel_operations import KINDS, apply_operation
from distill_core.transforms.upload import upload
from tests.support import stored_labels
from tests.support.fake_cuda import fake_cuda
from tests.support.stored_labels import COUNT, SCHEMES, SHARDS, shard
from tests.support.tiny import CLASSES, MEAN, SIDE, STD, pixels, tiny_batch, tiny_run, tiny_teacher

BOTH = pytest.mark.parametrize("precision", ["float32", "bfloat16"])
VIEWS = range(2)


def on_gpu(kind: str, precision: Precision) -> FrozenTeacher | Ensemble:
    """Return who labels the views of a kind; call it on the fake GPU."""
    count = 2 if kind == "ensemble" else 1
    return as_ensemble([tiny_teacher(precision, seed=n).to("cuda") for n in range(count)])


@pytest.mark.parametrize(
    ("kind", "precision"),
    [*((kind, "float32") for kind in stored_labels.KINDS), ("ensemble", "bfloat16")],
)
def test_every_kind_of_view_is_rendered_and_labelled_on_the_gpu(
    kind: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, predict = [], relabel.predict_view

    def watched(*args: object, **options: object) -> TeacherOutput:
        outputs.append(predict(*args, **options))  # type: ignore[arg-type]
        return outputs[-1]

    monkeypatch.setattr(relabel, "predict_view", watched)
    with fake_cuda():
        teacher, config = on_gpu(kind, precision), stored_labels.settings("features", kind)
        rows = relabel_shard(shard(0), VIEWS, config=config, teacher=teacher, seed=0)
        assert len(outputs) == len(VIEWS)
        for output in outputs:
            for tensor in (output.features, output.logits):
                assert (tensor.device.type, tensor.dtype) == ("cuda", torch.float32)
    assert rows.values is not None
    assert rows.values.shape == (len(VIEWS), len(SHARDS[0]), teacher.spec.features)


@BOTH
@pytest.mark.parametrize("side", [SIDE, 96])
@pytest.mark.parametrize("kind", ["none", "cutmix", "mixup", "cutout"])
def test_views_of_either_size_stay_on_the_gpu(kind: str, side: int, precision: Precision) -> None:
    """From 96 pixels on, levels are whole."""
    config = tiny_run(f"relabel.mix.kind={kind}", "relabel.patches=2").relabel
    drawn = sample_label_view(0, tiny_batch(), 1, config, side=side)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    with fake_cuda() as gpu:
        levels = upload(np.zeros((CLASSES, 3, side, side), np.uint8), "cuda")
        views = Renderer(kind, MEAN, STD, dtype).render(levels, np.array([2, 0]), drawn)
        assert (views.device.type, views.dtype) == ("cuda", dtype)
        assert views.shape == (2, 3, side, side)
        assert gpu.waits == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_operation_stays_on_the_gpu(kind: str) -> None:
    with fake_cuda() as gpu:
        levels, argument = upload(pixels(3), "cuda"), torch.ones(3, device="cuda")
        changed = apply_operation(kind, levels, argument, fill=MEAN)
        assert (changed.device.type, changed.dtype) == ("cuda", torch.uint8)
        assert changed.shape == levels.shape
        assert gpu.waits == []


@cache
def stored(scheme: str) -> tuple[LabelRows, ...]:
    """Return labels of every shard, made on the CPU."""
    files = [encode_labels(stored_labels.labelled(n, scheme, "cutmix")) for n in range(len(SHARDS))]
    return tuple(decode_labels(data) for data in files)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("rest", ["none", "mean"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_codec_decodes_on_the_gpu_without_a_wait_for_each_batch(
    scheme: str, rest: str, half: bool
) -> None:
    readers = [_reader(rows) for rows in stored(scheme)]
    with fake_cuda() as gpu:
        head = tiny_teacher().to("cuda").head
        counts, weights = [len(images) for images in SHARDS], (head.weight, head.bias)
        source = StoredLabels(readers, counts, weights, "cuda", rest=rest, half=half)  # type: ignore[arg-type]
        assert_decoded(source)
        assert gpu.waits == []


def test_labels_that_are_computed_online_stay_on_the_gpu() -> None:
    config = stored_labels.settings("features", "cutmix")
    with fake_cuda() as gpu:
        parts = [(shard(n).images, upload(shard(n).pixels, "cuda")) for n in range(len(SHARDS))]
        assert_decoded(OnlineLabels(parts, on_gpu("ensemble", "bfloat16"), config, 0))
        assert gpu.waits == []


def assert_decoded(source: LabelSource) -> None:
    labels = source.view(stored_labels.VIEWS[0])
    for rows in (np.arange(COUNT), np.array([5, 1])):
        logits = labels.logits(rows)
        assert (logits.device.type, logits.dtype) == ("cuda", torch.float32)
        assert logits.shape == (len(rows), CLASSES)


def _reader(rows: LabelRows) -> Callable[[int], LabelRows]:
    return memory_reader(rows)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_codec_encodes_what_the_gpu_computed(scheme: str) -> None:
    settings = stored_labels.settings(scheme, "cutmix")
    expected = stored(scheme)[0]
    with fake_cuda() as gpu:
        teacher, waits = on_gpu("cutmix", "bfloat16"), []
        for views in (1, 2):
            gpu.waits.clear()
            made = relabel_shard(shard(0), range(views), config=settings, teacher=teacher, seed=0)
            waits.append(len(gpu.waits))
    assert expected.values is not None
    assert made.values is not None
    assert made.values.dtype == expected.values.dtype
    assert made.values.shape[1:] == expected.values.shape[1:]
    if scheme.startswith("features"):  # one map for all views: they are fetched once
        assert waits[0] == waits[1]
