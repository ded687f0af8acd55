"""The test images that evaluate a student during training and in the validate stage."""

from __future__ import annotations

from itertools import pairwise

import pytest

from distill_core.evaluation.blocks import IN_TRAINING, rows_in_training, validation_blocks


@pytest.mark.parametrize(
    ("images", "shard", "sizes"),
    [(360, 100, [100, 100, 100, 60]), (200, 100, [100, 100]), (101, 100, [100, 1])],
)
def test_blocks_cover_every_image_once(images: int, shard: int, sizes: list[int]) -> None:
    blocks = validation_blocks(images, shard)
    assert [len(block) for block in blocks] == sizes
    assert [row for block in blocks for row in block] == list(range(images))


@pytest.mark.parametrize("images", [0, 99, 100])
def test_a_split_of_one_shard_is_evaluated_during_training_only(images: int) -> None:
    assert validation_blocks(images, 100) == ()
    assert rows_in_training(images, 100) is None


@pytest.mark.parametrize("images", [IN_TRAINING + 1, 50_000, 522_500])
def test_training_evaluates_evenly_spaced_images_of_a_large_split(images: int) -> None:
    rows = rows_in_training(images, 10_000)
    assert rows is not None
    steps = {after - before for before, after in pairwise(rows)}
    assert len(rows) == len(set(rows)) == IN_TRAINING
    assert (rows[0], max(steps) - min(steps) <= 1) == (0, True)
    assert images - rows[-1] <= -(-images // IN_TRAINING)


def test_the_shard_size_changes_training_only_where_no_later_stage_evaluates() -> None:
    assert rows_in_training(50_000, 100) == rows_in_training(50_000, 49_999)
    assert rows_in_training(50_000, 50_000) is None
