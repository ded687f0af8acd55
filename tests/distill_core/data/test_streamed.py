"""Images are read as they are used, each once, and few of them are in memory."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from distill_core.data import streamed
from distill_core.data.streamed import StreamedImages
from distill_core.selection.class_images import ClassImages, forward_batches
from distill_core.selection.select import SelectionSetup, select_block
from distill_core.statistics.measure import MeasureSetup, measure_block
from tests.support.tiny import SIDE, pixels, tiny_recover, tiny_teacher

IMAGE = 3 * SIDE**2
ROWS = np.arange(23)[::-1]


@pytest.mark.parametrize(("held", "sizes"), [(9, [8, 8, 7]), (4, [4] * 5 + [3]), (100, [23])])
def test_every_image_is_read_once_and_few_at_a_time(
    held: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "HELD_BYTES", held * IMAGE)
    every, asked = pixels(23), list[np.ndarray]()

    def read(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return every[rows]

    images = StreamedImages(ROWS, read, side=SIDE, batch=4)
    assert len(images) == 23
    parts = [images[start : start + 4] for start in range(0, 23, 4)]
    assert np.array_equal(np.concatenate(parts), every[ROWS])
    assert [len(rows) for rows in asked] == sizes
    assert np.array_equal(np.concatenate(asked), ROWS)


def test_a_batch_above_the_limit_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "HELD_BYTES", 1)
    every = pixels(250)
    images = ClassImages(lambda label: np.arange(250), lambda rows: every[rows], side=SIDE)
    parts = list(forward_batches(images.streamed(np.arange(250))))
    assert [len(part) for part in parts] == [100, 100, 50]
    assert np.array_equal(np.concatenate(parts), every)


@pytest.mark.parametrize("held", [1, 150, 1000])
def test_statistics_and_selections_do_not_depend_on_how_much_is_read_at_once(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "HELD_BYTES", held * IMAGE)
    every, sizes = pixels(330), list[int]()

    def read(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return every[rows]

    few = ClassImages(lambda label: np.arange(label, 330, 2), read, side=SIDE)
    whole = ClassImages(few.rows_of, lambda rows: every[rows])
    teacher, classes = tiny_teacher(), [(0, "class_0"), (1, "class_1")]
    statistics = MeasureSetup(
        tiny_recover("recover.terms={class_bn_statistics: 1.0}"), teacher, teacher, seed=0
    )
    selection = SelectionSetup(teacher, tiny_teacher(seed=1), limit=None, seed=0)
    for work, setup in ((measure_block, statistics), (select_block, selection)):
        one, other = (work(classes, images, setup) for images in (few, whole))
        assert pickle.dumps(one) == pickle.dumps(other)
    assert sum(sizes) == 2 * 330
    assert max(sizes) == (100 if held < 1000 else 165)
