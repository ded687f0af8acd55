"""Statistics, selection, evaluation and imports on a GPU that computes no values."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distill_core.config.fields import Precision
from distill_core.config.recovery import RecoverConfig
from distill_core.config.terms import MEASURED
from distill_core.errors import ConfigError
from distill_core.evaluation.validate import validate_student
from distill_core.models.build import build_model
from distill_core.models.files import load_student, load_teacher, save_weights
from distill_core.selection.class_images import ClassImages
from distill_core.selection.coreset import SELECTIONS, features_of
from distill_core.selection.select import SelectionSetup, select_block
from distill_core.selection.starts import Starts
from distill_core.squeeze.importing import import_teacher
from distill_core.statistics.barycentre import barycentre
from distill_core.statistics.measure import MeasureSetup, measure_block
from tests.support.fake_cuda import Wait, fake_cuda
from tests.support.teacher_training import run, split
from tests.support.term_bench import config_of
from tests.support.tiny import (
    CLASSES,
    labelled,
    pixels,
    tiny_batch,
    tiny_recover,
    tiny_run,
    tiny_teacher,
)

BOTH = pytest.mark.parametrize("precision", ["float32", "bfloat16"])
CLASS = [(label, f"class_{label}") for label in range(CLASSES)]


def real_images() -> ClassImages:
    """Return six images of each class."""
    images = labelled(6 * CLASSES)
    return ClassImages(
        lambda label: np.flatnonzero(images.labels == label), lambda rows: images.pixels[rows]
    )


@BOTH
@pytest.mark.parametrize("term", sorted(MEASURED))
def test_the_statistics_of_every_term_are_measured_on_the_gpu(
    term: str, precision: Precision
) -> None:
    with fake_cuda():
        teacher = tiny_teacher(precision).to("cuda")
        setup = MeasureSetup(config_of(term), teacher, teacher, seed=0)
        measured = measure_block(CLASS[:2], real_images(), setup)
    assert list(measured) == ["class_0", "class_1"]
    assert all(len(rows) > 0 for rows in measured.values())


def test_a_barycentre_stays_on_the_gpu() -> None:
    with fake_cuda():
        features = torch.zeros(9, 5, device="cuda")
        for points in (3, 12):
            found = barycentre(features, points, np.random.default_rng(0))
            assert (found.device.type, tuple(found.shape)) == ("cuda", (points, 5))


STARTS = {
    "real": (),
    "mosaic": ("recover.mosaic={images: 6, crops: 2, factor: 2, order: median}",),
    "herding": (),
    "k_center": (),
}


@BOTH
@pytest.mark.parametrize("init", STARTS)
def test_starts_are_chosen_on_the_gpu(init: str, precision: Precision) -> None:
    config: RecoverConfig = tiny_recover(f"recover.init={init}", *STARTS[init])
    with fake_cuda():
        starts = Starts(config, 0, tiny_teacher(precision).to("cuda"), real_images())
        made = starts.of(tiny_batch())
    assert made is not None
    assert made.shape == (CLASSES, 3, 16, 16)


@BOTH
def test_real_images_are_judged_and_described_on_the_gpu(precision: Precision) -> None:
    with fake_cuda():
        teacher, student = (tiny_teacher(precision, seed=n).to("cuda") for n in range(2))
        setup = SelectionSetup(teacher, student, limit=None, seed=0)
        selected = select_block(CLASS, real_images(), setup)
        features = features_of([pixels(4), pixels(2)], teacher)
    assert {len(of_class.order) for of_class in selected.values()} == {6}
    assert features.shape == (6, 8)
    assert all(len(choose(features, 3)) == 3 for choose in SELECTIONS.values())


def network() -> nn.Module:
    return build_model(tiny_run().posttrain.students[0], CLASSES, seed=0)


@BOTH
def test_stored_networks_are_loaded_onto_the_gpu(precision: Precision) -> None:
    weights, spec = save_weights(network()), tiny_teacher().spec
    with fake_cuda():
        teacher = load_teacher(weights, spec.to_json(), device="cuda", precision=precision)
        student = load_student(weights, spec.model, teacher, precision=precision)
        for loaded in (teacher, student):
            tensors = [*loaded.parameters(), *loaded.buffers()]
            assert all(tensor.is_cuda for tensor in tensors)


def test_a_student_is_validated_on_the_gpu_with_one_wait_for_all_its_batches() -> None:
    config, weights, test = tiny_run(), save_weights(network()), labelled(40)
    with fake_cuda() as gpu:
        counted = validate_student(
            {"last": weights, "ema": weights}, test.pixels, test.labels,
            student=config.posttrain.students[0], data=config.data, device="cuda",
        )  # fmt: skip
        waits = [wait for wait in gpu.waits if wait.kind == "download"]
    assert counted.keys() == {"last", "ema"}
    assert len(waits) == 2


@pytest.mark.parametrize("accept", [False, True], ids=["refused", "as it is"])
def test_an_imported_teacher_is_judged_on_the_gpu(accept: bool, tmp_path: Path) -> None:
    """A network without values is refused, after others with the same tensors were tried."""
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(save_weights(build_model(run().squeeze.model, 3, seed=0)))
    imported = {"accept_any": accept, "sample": 60}
    config = run(squeeze={"checkpoint": str(path), "training": None, "imported": imported})
    with fake_cuda() as gpu, nullcontext() if accept else pytest.raises(ConfigError, match="top-1"):
        made = import_teacher(split(150, 1), run=config, class_hash="ab", device="cuda")
        assert made.judged
    assert Wait("squeeze/judging.py:_predictions", "download") in gpu.waits
