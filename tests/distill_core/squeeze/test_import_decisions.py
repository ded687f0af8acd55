"""The statistics by which an imported teacher is judged: chance, and the order of its outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.config.training import ImportConfig
from distill_core.errors import ConfigError
from distill_core.squeeze.import_check import (
    better_than_chance,
    can_be_judged,
    check_import,
    least_accuracy,
    output_order,
)


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


@pytest.mark.parametrize(("classes", "each"), [(10, 100), (10, 1000), (100, 50)])
def test_a_teacher_with_strong_habits_is_no_other_order(classes: int, each: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.repeat(np.arange(classes), each))
        habits = rng.normal(0, 0.6, (classes, classes)) + 2 * np.eye(classes)
        predicted = (habits[labels] + rng.normal(0, 1, (len(labels), classes))).argmax(axis=1)
        assert 0.2 < np.mean(predicted == labels) < 0.7
        assert output_order(predicted, labels, classes=classes) is None


def test_the_order_is_named_when_a_weak_teacher_is_refused_anyway() -> None:
    right, labels = predictions(0.55, classes=2, each=200)
    with pytest.raises(ConfigError, match=r"no better than guessing: .* every output moved by 1"):
        check_import(1 - right, labels, ImportConfig(), classes=2, where="teacher.pth")


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


@pytest.mark.parametrize(("classes", "least"), [(2, 55.0), (10, 19.0), (1000, 10.09)])
def test_the_least_accuracy_is_a_tenth_of_the_way_from_guessing(classes: int, least: float) -> None:
    labels = np.repeat(np.arange(classes), 20)
    assert least_accuracy(labels, ImportConfig()) == pytest.approx(least)
    assert least_accuracy(labels, ImportConfig(min_accuracy=3)) == 3


def test_a_teacher_hardly_better_than_guessing_is_refused() -> None:
    predicted, labels = predictions(0.02, classes=100, each=100)
    assert better_than_chance(predicted, labels)
    with pytest.raises(ConfigError, match=r"expected at least 10\.9 %.*min_accuracy"):
        check_import(predicted, labels, ImportConfig(), classes=100, where="teacher.pth")
    check_import(predicted, labels, ImportConfig(min_accuracy=1), classes=100, where="teacher.pth")


def test_the_network_that_fits_is_named_only_where_no_order_does() -> None:
    predicted, labels = predictions(0.0, classes=10, each=100)
    with pytest.raises(ConfigError, match=r"guessing\. As a resnet\.$"):
        check_import(
            predicted,
            labels,
            ImportConfig(),
            classes=10,
            where="teacher.pth",
            explain=lambda: "As a resnet.",
        )
    right, labels = predictions(0.9, classes=10, each=100)
    with pytest.raises(ConfigError, match="another order"):
        check_import(
            (right + 1) % 10,
            labels,
            ImportConfig(),
            classes=10,
            where="teacher.pth",
            explain=lambda: "As a resnet.",
        )
