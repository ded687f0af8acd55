"""The real images that a round starts from."""

from __future__ import annotations

import numpy as np
import pytest

from distill_core.errors import DataError
from distill_core.selection.class_images import ClassImages
from distill_core.selection.select import (
    ClassSelection,
    SelectionSetup,
    candidates_of,
    decode_selection,
    encode_selection,
    gets_right,
    select_block,
    select_class,
    totals,
)
from tests.support.tiny import SIDE, tiny_teacher

NONE = np.zeros(0, np.int32)


def flags(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


def chosen(teacher: str, student: str | None, *, used: np.ndarray = NONE) -> ClassSelection:
    known = None if student is None else flags(student)
    places = np.arange(len(teacher), dtype=np.int32)
    return select_class(places, flags(teacher), known, used=used)


def candidates(count: int, used: np.ndarray = NONE, limit: int | None = None) -> list[int]:
    return candidates_of(count, "cat", used=used, limit=limit, seed=0).tolist()


def test_the_first_round_starts_from_images_that_the_teacher_gets_right() -> None:
    assert chosen("0101", None).order.tolist() == [1, 3, 0, 2]


def test_later_rounds_prefer_student_errors_then_common_errors_then_the_rest() -> None:
    # Places:      right/right, wrong/wrong, right/wrong, wrong/right, right/wrong
    selected = chosen("10101", "10010")
    assert selected.order.tolist() == [2, 4, 1, 0, 3]
    assert selected.counts == {"wanted": 2, "hard": 1, "other": 2}


def test_equal_ranks_keep_the_order_in_which_they_were_drawn() -> None:
    places = np.array([7, 2, 5], np.int32)
    every = np.ones(3, bool)
    assert select_class(places, every, None, used=NONE).order.tolist() == [7, 2, 5]


def test_no_image_is_used_in_two_rounds() -> None:
    first = candidates_of(10, "cat", used=NONE, limit=None, seed=0)
    one = select_class(first, np.ones(10, bool), None, used=NONE)
    used = one.used_after(4)
    second = candidates(10, used)
    assert sorted([*used.tolist(), *second]) == list(range(10))
    two = select_class(np.array(second, np.int32), np.ones(6, bool), np.zeros(6, bool), used=used)
    assert len(set(two.used_after(6).tolist())) == 10


def test_only_an_exhausted_class_repeats_its_images() -> None:
    every = np.arange(5, dtype=np.int32)
    assert candidates(5, every[:4]) == [4]
    assert sorted(candidates(5, every)) == every.tolist()
    short = chosen("11", None)
    assert [short.start_of(n) for n in range(4)] == [0, 1, 0, 1]


def test_with_a_limit_each_round_considers_other_images() -> None:
    first = candidates(10, limit=3)
    assert first == candidates(10)[:3]
    assert set(first).isdisjoint(candidates(10, np.array(first, np.int32), limit=3))


def test_a_class_without_images_is_refused() -> None:
    none = ClassImages(lambda label: np.zeros(0, np.int64), lambda rows: np.zeros(0, np.uint8))
    with pytest.raises(DataError, match="class cat: no real image to start from"):
        select_block([(0, "cat")], none, SelectionSetup(tiny_teacher(), None, None, seed=0))


def test_an_image_is_right_if_its_class_is_predicted() -> None:
    teacher = tiny_teacher()
    pixels = np.random.default_rng(0).integers(0, 256, (130, 3, SIDE, SIDE)).astype(np.uint8)
    right = [gets_right(teacher, pixels, label) for label in range(4)]
    assert np.sum(right, axis=0).tolist() == [1] * len(pixels)  # each in exactly one class


def test_a_block_is_read_back_as_it_was_written() -> None:
    block = {"cat": chosen("10", "01"), "dog & co": chosen("1", None, used=np.array([3], np.int32))}
    data = encode_selection(block)
    assert encode_selection(block) == data
    found = decode_selection(data)
    assert list(found) == list(block)
    for wnid, one in block.items():
        assert found[wnid].order.tolist() == one.order.tolist()
        assert found[wnid].used.tolist() == one.used.tolist()
        assert found[wnid].counts == one.counts
    assert totals(list(found.values())) == {"wanted": 2, "hard": 0, "other": 1}


def test_a_damaged_block_is_refused() -> None:
    with pytest.raises(DataError, match="not a complete Parquet file"):
        decode_selection(encode_selection({"cat": chosen("1", None)})[:-9])


def test_a_block_orders_each_class_by_what_teacher_and_student_get_right() -> None:
    teacher, student = tiny_teacher(), tiny_teacher(seed=1)
    pixels = np.random.default_rng(1).integers(0, 256, (24, 3, SIDE, SIDE)).astype(np.uint8)
    images = ClassImages(lambda label: np.arange(label, 24, 2), lambda rows: pixels[rows])
    seen: list[tuple[int, int]] = []
    selected = select_block(
        [(0, "cat"), (1, "dog")],
        images,
        SelectionSetup(teacher, student, limit=9, seed=0),
        used={"cat": np.array([3], np.int32)},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert list(selected) == ["cat", "dog"]
    assert seen == [(1, 2), (2, 2)]
    assert 3 not in selected["cat"].order
    for label, of_class in enumerate(selected.values()):
        shown = pixels[images.rows_of(label)[of_class.order]]
        wanted = gets_right(teacher, shown, label) & ~gets_right(student, shown, label)
        assert len(of_class.order) == 9
        assert wanted.sum() == of_class.counts["wanted"]
        assert wanted[: wanted.sum()].all()
