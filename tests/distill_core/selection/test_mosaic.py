"""Mosaics of scored crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, pad

from distill_core.config.recovery_settings import MosaicConfig
from distill_core.errors import ConfigError
from distill_core.selection.mosaic import choose_candidates, rank_crops, stitch
from distill_core.transforms.pixel_space import PixelSpace
from tests.support.tiny import SIDE, tiny_run, tiny_teacher

FACTOR = 2
MOSAIC = MosaicConfig(images=6, crops=3, factor=FACTOR)


def real_images(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE)).astype(np.uint8)


def ranked(config: MosaicConfig = MOSAIC, *, label: int = 1, seed: int = 0) -> np.ndarray:
    return rank_crops(
        real_images(),
        label,
        f"class_{label}",
        config=config,
        teacher=tiny_teacher(),
        seed=seed,
    ).crops


def scores(crops: np.ndarray, label: int) -> np.ndarray:
    """Score crops one by one, without batches."""
    teacher, found = tiny_teacher(), []
    space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, teacher.head.weight)
    for crop in crops:
        margin = (SIDE - crop.shape[-1]) // 2
        image = pad(space.normalise(torch.from_numpy(crop)[None]), (margin,) * 4)
        with torch.no_grad():
            found.append(float(cross_entropy(teacher(image).logits, torch.tensor([label]))))
    return np.array(found)


def test_crops_are_ordered_best_first_with_one_per_image() -> None:
    crops = ranked()
    assert crops.shape == (6, 3, SIDE // FACTOR, SIDE // FACTOR)
    found = scores(crops, 1)
    assert np.all(np.diff(found) >= -1e-6)


def test_choosing_among_more_crops_gives_better_scores() -> None:
    one_each = ranked(MOSAIC.model_copy(update={"crops": 1}))
    assert scores(ranked(), 1).mean() < scores(one_each, 1).mean()


def test_the_median_order_begins_in_the_middle_and_ends_at_an_extreme() -> None:
    crops = ranked(MOSAIC.model_copy(update={"order": "median"}))
    found = np.exp(-scores(crops, 1))
    middle = np.sort(found)[(len(found) - 1) // 2]
    assert found[0] == pytest.approx(middle)
    assert np.all(np.diff(np.abs(found - middle)) >= -1e-6)


def test_the_same_seed_gives_the_same_crops_and_another_seed_others() -> None:
    assert np.array_equal(ranked(), ranked())
    assert not np.array_equal(ranked(), ranked(seed=1))


def test_tiles_are_arranged_row_by_row() -> None:
    crops = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1).repeat(3, axis=1)
    assert stitch(crops, 0, factor=2)[0].tolist() == [[0, 1], [2, 3]]
    assert stitch(crops, 1, factor=2)[0].tolist() == [[4, 5], [6, 7]]


def test_a_class_with_few_images_uses_crops_again() -> None:
    crops = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, axis=1)
    assert stitch(crops, 1, factor=2)[1].tolist() == [[1, 2], [0, 1]]


def test_at_most_the_configured_number_of_images_is_scored_and_none_twice() -> None:
    chosen = choose_candidates(np.arange(100), "cat", MOSAIC, seed=0)
    assert len(set(chosen.tolist())) == len(chosen) == MOSAIC.images
    few = choose_candidates(np.arange(2), "cat", MOSAIC, seed=0)
    assert sorted(few.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["recover.init=mosaic"], "mosaic is required with init=mosaic"),
        (["recover.mosaic.factor=2"], "mosaic is required with init=mosaic"),
        (["recover.init=mosaic", "recover.mosaic.factor=3"], "must divide data.side"),
    ],
)
def test_images_that_cannot_be_tiled_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_run(*overrides)
