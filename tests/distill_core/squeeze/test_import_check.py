"""Imported teachers: refused without better accuracy than guessing, or in another class order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load, save

from distill_core.config.load import fingerprint, load_run
from distill_core.config.schema import RunConfig
from distill_core.config.training import ImportConfig
from distill_core.errors import ConfigError
from distill_core.keys import squeeze_key
from distill_core.models.build import skeleton
from distill_core.squeeze.import_check import (
    better_than_chance,
    can_be_judged,
    check_import,
    output_order,
)
from distill_core.squeeze.teacher import SqueezedTeacher, import_teacher, train_teacher
from tasks.pools.failures import FINAL
from tests.support.teacher_training import TEST, TRAIN, run, split

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


def test_only_the_order_of_outputs_decides_the_key() -> None:
    def key(**imported: Any) -> str:
        config = importing("teacher.pth", **imported)
        return squeeze_key(config, class_hash="c", train="a", test="b", checkpoint="sha")

    assert key() == key(top1=50) == key(accept_any=True)
    assert key() != key(outputs=[1, 2, 0])


def test_the_names_of_runs_do_not_change() -> None:
    assert fingerprint(load_run("cda-cifar10", ["data.path=x"])) == "0b4929ed"
    reordered = load_run("cda-cifar10", ["data.path=x", "squeeze.imported={top1: 50}"])
    assert fingerprint(reordered) != "0b4929ed"


# --- the decisions ---


def guesses(seed: int, classes: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, images), rng.integers(0, classes, images)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 50), images=st.integers(1, 400))
def test_guesses_are_mostly_not_better_than_chance(seed: int, classes: int, images: int) -> None:
    predicted, labels = guesses(seed, classes, images)
    if np.mean(predicted == labels) < np.bincount(labels).max() / images:
        assert not better_than_chance(predicted, labels)
    assert not better_than_chance(np.full(images, np.bincount(labels).argmax()), labels)


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_a_moved_order_is_found_and_a_right_one_is_left_alone(
    classes: int, accuracy: float
) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.permutation(np.repeat(np.arange(classes), 20))
    wrong = rng.integers(0, classes, len(labels))
    right = np.where(rng.random(len(labels)) < accuracy, labels, wrong)
    assert output_order(right, labels, classes=classes) is None
    assert better_than_chance(right, labels)
    order = rng.permutation(classes)
    found = output_order(np.argsort(order)[right], labels, classes=classes)
    assert found is not None
    assert np.mean(found == order) >= 0.9


@pytest.mark.parametrize("seed", range(20))
def test_no_order_is_found_for_guesses(seed: int) -> None:
    predicted, labels = guesses(seed, 10, 360)
    assert output_order(predicted, labels, classes=10) is None


def predictions(
    accuracy: float, *, classes: int, each: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predictions of a teacher in the right order, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), each))
    hits = rng.random(len(labels)) < accuracy
    return np.where(hits, labels, rng.integers(0, classes, len(labels))), labels


def cycled(classes: int, moved: int) -> np.ndarray:
    """Return the order in which the first outputs stand for each other's classes."""
    return np.concatenate([np.roll(np.arange(moved), 1), np.arange(moved, classes)])


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("moved", [2, 3, 4, 6])
def test_an_order_that_is_partly_wrong_is_found(moved: int, accuracy: float) -> None:
    right, labels = predictions(accuracy, classes=10, each=100)
    order = cycled(10, moved)
    predicted = np.argsort(order)[right]
    assert np.mean(predicted == labels) > 0.2
    assert output_order(right, labels, classes=10) is None
    found = output_order(predicted, labels, classes=10)
    assert found is not None
    assert found.tolist() == order.tolist()
    with pytest.raises(ConfigError, match="its classes stand in another order"):
        check_import(predicted, labels, ImportConfig(), classes=10, where="teacher.pth")


@pytest.mark.parametrize("seed", range(20))
def test_a_teacher_that_confuses_two_classes_is_no_other_order(seed: int) -> None:
    right, labels = predictions(0.8, classes=100, each=50, seed=seed)
    rng = np.random.default_rng(seed)
    twins = np.where(right < 40, right ^ (rng.random(len(right)) < 0.5), right)
    assert output_order(twins, labels, classes=100) is None


def test_the_order_is_named_when_the_expected_accuracy_is_missed() -> None:
    right, labels = predictions(0.95, classes=10, each=30)
    predicted, config = np.argsort(cycled(10, 2))[right], ImportConfig(top1=94)
    with pytest.raises(ConfigError, match="output 0 as class 1, output 1 as class 0 it would be"):
        check_import(predicted, labels, config, classes=10, where="teacher.pth")


@pytest.mark.parametrize(
    "counts", [(4, 4), (1, 0), (300, 0), (50, 3), (0, 2)], ids=lambda counts: f"{counts}"
)
def test_a_good_teacher_is_accepted_where_no_teacher_could_pass(counts: tuple[int, int]) -> None:
    labels = np.repeat([0, 1], counts)
    assert not can_be_judged(labels)
    check_import(labels, labels, ImportConfig(), classes=2, where="teacher.pth")
    with pytest.raises(ConfigError, match=r"top-1 is 0\.0 %.* expected 90\.0 %"):
        check_import(1 - labels, labels, ImportConfig(top1=90), classes=2, where="teacher.pth")


def test_a_teacher_is_judged_where_one_could_pass() -> None:
    labels = np.repeat([0, 1], 10)
    assert can_be_judged(labels)
    check_import(labels, labels, ImportConfig(), classes=2, where="teacher.pth")
    with pytest.raises(ConfigError, match="no better than guessing"):
        check_import(labels * 0, labels, ImportConfig(), classes=2, where="teacher.pth")
