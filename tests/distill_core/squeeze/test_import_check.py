"""Imported teachers: refused without better accuracy than guessing, or in another class order."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from distill_core.config.load import fingerprint, load_run
from distill_core.config.schema import RunConfig
from distill_core.data.decoding.image import decode_image
from distill_core.errors import ConfigError
from distill_core.keys import squeeze_key
from distill_core.models.build import skeleton
from distill_core.squeeze.importing import import_teacher
from distill_core.squeeze.result import SqueezedTeacher
from distill_core.squeeze.teacher import train_teacher
from distill_core.storage.packages import package_file
from distill_core.training.streaming import StreamedSplit
from distill_core.training.supervised import Labelled
from tasks.pools.faults import FINAL
from tests.support.teacher_training import TEST, TRAIN, TREE, run, split

MANY = split(150, 1)  # test images


@pytest.fixture(scope="module")
def weights() -> bytes:
    """Return the weights of an accurate teacher of three classes."""
    config = run(training={"epochs": 8, "augment": {"pad_crop": 1}})
    teacher = train_teacher(TRAIN, TEST, run=config, class_hash="ab")
    assert teacher.accuracy.top1 > 80
    return teacher.files["safetensors"]


def taken(folder: Path, weights: bytes, **imported: Any) -> SqueezedTeacher:
    """Import weights."""
    path = folder / "teacher.safetensors"
    path.write_bytes(weights)
    return import_teacher(MANY, run=importing(path, **imported), class_hash="ab")


def importing(path: Path | str, **imported: Any) -> RunConfig:
    return run(squeeze={"checkpoint": str(path), "training": None, "imported": imported or None})


def moved(weights: bytes, order: list[int]) -> bytes:
    """Return a teacher whose output k stands for class order[k]."""
    state = load(weights)
    return save({k: v[order].clone() if k.startswith("fc.") else v for k, v in state.items()})


def refused(folder: Path, weights: bytes, **imported: Any) -> str:
    with pytest.raises(ConfigError) as error:
        taken(folder, weights, **imported)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("order", [[1, 2, 0], [2, 0, 1]])
def test_a_teacher_in_another_class_order_is_refused_with_the_order_that_fits(
    tmp_path: Path, weights: bytes, order: list[int]
) -> None:
    before = taken(tmp_path, weights)
    line = refused(tmp_path, moved(weights, order))
    assert "its classes stand in another order" in line
    assert f"every output moved by {order[0]}" in line
    assert f"it would be {before.accuracy.top1:.1f} %" in line
    assert f"every output, [{','.join(map(str, order))}]" in line
    mended = taken(tmp_path, moved(weights, order), outputs=order)
    assert mended.accuracy == before.accuracy
    assert load_equal(mended, before)


def load_equal(one: SqueezedTeacher, other: SqueezedTeacher) -> bool:
    first, second = (load(teacher.files["safetensors"]) for teacher in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first | second)


def test_a_teacher_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    config = run()
    torch.manual_seed(0)
    model = skeleton(config.squeeze.model, 3).to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    data = save(model.state_dict())
    line = refused(tmp_path, data)
    assert "no better than guessing" in line
    assert "squeeze.model, with its first layers" in line
    assert "accept_any=true" in line
    assert taken(tmp_path, data, accept_any=True).accuracy.top1 < 70


def test_a_teacher_below_its_expected_accuracy_is_refused(tmp_path: Path, weights: bytes) -> None:
    top1 = taken(tmp_path, weights).accuracy.top1
    taken(tmp_path, weights, top1=min(100, top1 + 1.5))
    state = load(weights)
    state["fc.bias"][0] -= 1000  # the first class is never predicted
    dull = save(state)
    accuracy = taken(tmp_path, dull).accuracy.top1
    assert 60 < accuracy < 70
    line = refused(tmp_path, dull, top1=top1)
    assert f"top-1 is {accuracy:.1f} % on 150 test images, expected {top1:.1f} %" in line
    assert "squeeze.model, with its first layers" in line


def test_a_file_that_cannot_be_read_ends_the_import_at_once(tmp_path: Path, weights: bytes) -> None:
    state = load(weights)
    state["fc.bias"][0] = float("nan")
    for data, words in ((save(state), "NaN or infinite values"), (weights[:-9], "complete")):
        with pytest.raises(FINAL, match=words):
            taken(tmp_path, data)


@pytest.mark.parametrize("outputs", [[0, 1], [0, 0, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_an_order_that_is_none_is_refused_with_the_config(outputs: list[int]) -> None:
    with pytest.raises(ValidationError, match="every class id from 0 to 2 once"):
        importing("teacher.pth", outputs=outputs)


def test_only_the_outputs_and_the_entry_decide_the_key() -> None:
    def key(**imported: Any) -> str:
        config = importing("teacher.pth", **imported)
        return squeeze_key(config, class_hash="c", train="a", test="b", checkpoint="sha")

    assert key() == key(top1=50) == key(accept_any=True)
    assert key() == key(min_accuracy=50) == key(sample=10)
    assert key() != key(outputs=[1, 2, 0])
    assert key() != key(entry="model_ema")


def test_the_names_of_runs_do_not_change() -> None:
    assert fingerprint(load_run("cda-cifar10", ["data.path=x"])) == "0b4929ed"
    reordered = load_run("cda-cifar10", ["data.path=x", "squeeze.imported={top1: 50}"])
    assert fingerprint(reordered) != "0b4929ed"
    tree = reordered.model_dump(mode="json")["squeeze"]["imported"]
    assert tree == {"top1": 50.0, "accept_any": False, "outputs": []}  # as stored before


@pytest.fixture(scope="module")
def pooled() -> bytes:
    """Return the weights of an accurate teacher that keeps the max-pool of its stem."""
    config = run(
        squeeze={"model": {"name": "resnet18_maxpool_small", "width": 4}},
        training={"epochs": 12, "augment": {"pad_crop": 1}},
    )
    teacher = train_teacher(TRAIN, TEST, run=config, class_hash="ab")
    assert teacher.accuracy.top1 > 75
    return teacher.files["safetensors"]


def test_a_stem_of_equal_shapes_and_another_function_is_named(
    tmp_path: Path, pooled: bytes
) -> None:
    line = refused(tmp_path, pooled, min_accuracy=99.9)
    assert "As a resnet18_maxpool_small-w4, which has the same tensors" in line
    assert "Set squeeze.model.name=resnet18_maxpool_small" in line


def test_a_teacher_below_the_least_accuracy_is_refused(tmp_path: Path, weights: bytes) -> None:
    state = load(weights)
    state["fc.bias"][0] -= 1000  # the first class is never predicted
    dull = save(state)
    taken(tmp_path, dull)  # far better than guessing
    line = refused(tmp_path, dull, min_accuracy=80)
    assert "expected at least 80.0 % (squeeze.imported.min_accuracy)" in line


def test_a_sample_judges_a_teacher_and_the_error_states_its_size(
    tmp_path: Path, weights: bytes
) -> None:
    whole, sampled = taken(tmp_path, weights), taken(tmp_path, weights, sample=40)
    assert sampled.accuracy == whole.accuracy  # which is measured on all images
    line = refused(tmp_path, moved(weights, [1, 2, 0]), sample=40)
    assert "(judged on a sample)" in line
    assert "on 40 test images" in line


def test_a_split_in_blocks_judges_like_one_in_memory_and_is_read_once(
    tmp_path: Path, weights: bytes
) -> None:
    read: list[int] = []

    def pixels_of(places: np.ndarray) -> np.ndarray:
        read.extend(places.tolist())
        return MANY.pixels[places]

    (tmp_path / "blocks.safetensors").write_bytes(weights)
    config = importing(tmp_path / "blocks.safetensors")
    blocks = StreamedSplit(pixels_of, MANY.labels)
    assert import_teacher(blocks, run=config, class_hash="ab") == import_teacher(
        MANY, run=config, class_hash="ab"
    )
    assert sorted(read) == list(range(len(MANY.labels)))


def test_a_published_teacher_is_imported_and_judged_on_photographs(imagenet_samples: Path) -> None:
    """Ten photographs of 1,000 classes suffice to tell a teacher from guesses."""
    name = "package:efficientnet-lite0"
    try:
        package_file(name)
    except ConfigError as error:
        pytest.skip(str(error))
    squeeze = {"model": {"name": "efficientnet_lite0"}, "checkpoint": name, "training": None}
    half = (0.5, 0.5, 0.5)
    data = {"num_classes": 1000, "side": 224, "mean": half, "std": half}
    config = run(data=TREE["data"] | data | {"load": "center_crop", "resize": 256}, squeeze=squeeze)
    photographs = every_tenth_photograph(imagenet_samples, config)
    teacher = import_teacher(photographs, run=config, class_hash="ab")
    assert teacher.accuracy.top1 >= 80
    moved_labels = Labelled(photographs.pixels, (photographs.labels + 7) % 1000)
    with pytest.raises(ConfigError, match=r"top-1 is 0\.0 % on 10 test images, which is no better"):
        import_teacher(moved_labels, run=config, class_hash="ab")


def every_tenth_photograph(archive: Path, config: RunConfig) -> Labelled:
    with tarfile.open(archive) as tar:
        members = sorted(tar.getmembers(), key=lambda member: member.name)[::10]
        files = [tar.extractfile(member) for member in members]
        images = [decode_image(file.read(), config.data) for file in files if file is not None]
    return Labelled(np.stack(images), np.arange(0, 1000, 100))
