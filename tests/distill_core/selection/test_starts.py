"""Properties of every kind of start: right classes, no repetition, determinism, prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pytest

from distill_core.config.fields import Precision
from distill_core.config.recovery import InitName, RecoverConfig
from distill_core.errors import DataError
from distill_core.seeds import generator
from distill_core.selection.class_images import ClassImages
from distill_core.selection.coreset import herding, k_center
from distill_core.selection.distinct import COUNTED, distinct_images, too_small
from distill_core.selection.select import candidates_of, select_class
from distill_core.selection.starts import Starts, gaussian
from distill_core.sharding import Batch, ImageId
from tests.support.tiny import CLASSES, SIDE, tiny_batch, tiny_recover, tiny_teacher

PER_CLASS = 9  # real images
NONE = np.zeros(0, np.int32)
WHOLE = "recover.mosaic={images: 9, crops: 1, factor: 1, scale: [1.0, 1.0], order: median}"
INITS = {  # by name of the case: overrides. A mosaic of one whole crop is an image of its class
    "gaussian": ("recover.init=gaussian",),
    "real": ("recover.init=real",),
    "mosaic": ("recover.init=mosaic", WHOLE),
    "herding": ("recover.init=herding",),
    "k_center": ("recover.init=k_center",),
    "judged": ("recover.init=judged",),
}
REAL = [name for name in INITS if name != "gaussian"]
# Compared between workers; stitched out of crops, so no start is a real image.
TILES = "recover.mosaic={images: 9, crops: 3, factor: 2}"
COMPARED = INITS | {"tiles": ("recover.init=mosaic", TILES)}
RANKED = ("mosaic", "tiles", "herding", "k_center")  # by what a teacher says


def pool() -> np.ndarray:
    """Return smooth images, (CLASSES * PER_CLASS, 3, S, S) uint8, class by class; none alike."""
    coarse = generator(3).integers(0, 256, (CLASSES * PER_CLASS, 3, SIDE // 4, SIDE // 4))
    return coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)


POOL = pool()


def rows_of(label: int, count: int = PER_CLASS) -> np.ndarray:
    return np.arange(count) + label * PER_CLASS


def config(case: str) -> RecoverConfig:
    return tiny_recover(*COMPARED[case], "recover.steps=0")


def starts(
    case: str,
    *,
    reach: int = PER_CLASS,
    seed: int = 0,
    count: int = PER_CLASS,
    precision: Precision = "float32",
) -> Starts:
    return Starts(
        config(case),
        seed,
        tiny_teacher(precision),
        images=ClassImages(lambda label: rows_of(label, count), lambda rows: POOL[rows]),
        selected=lambda image: judged(image, count, seed),
        reach=reach,
    )


def judged(image: ImageId, count: int, seed: int) -> int:
    """Return the place of an image that was chosen by a teacher who gets all of them right."""
    places = candidates_of(count, image.wnid, used=NONE, limit=None, seed=seed)
    return select_class(places, np.ones(count, bool), None, used=NONE).start_of(image.ipc_index)


def started(case: str, batches: Sequence[Batch], **changes: Any) -> dict[ImageId, bytes]:
    """Return every image's start as bytes, made by one worker batch by batch."""
    worker, found = starts(case, **changes), {}
    for batch in batches:
        pixels = worker.of(batch)
        if pixels is None:
            pixels = gaussian(batch, SIDE, seed=changes.get("seed", 0))
        found |= {image: pixel.tobytes() for image, pixel in zip(batch, pixels, strict=True)}
    return found


def batches(ipc: int) -> list[Batch]:
    return [tiny_batch(index) for index in range(ipc)]


def test_the_cases_cover_every_way_to_start() -> None:
    assert {config(case).init for case in INITS} == set(get_args(InitName))


@pytest.mark.parametrize("case", REAL)
def test_a_start_is_a_real_image_of_its_class(case: str) -> None:
    known = {image.tobytes(): row // PER_CLASS for row, image in enumerate(POOL)}
    made = started(case, batches(PER_CLASS))
    assert all(known[start] == image.label for image, start in made.items())


@pytest.mark.parametrize("case", INITS)
def test_no_image_of_a_class_is_reused_before_all_are_used(case: str) -> None:
    made = started(case, batches(PER_CLASS))
    assert len(set(made.values())) == len(made) == CLASSES * PER_CLASS


@pytest.mark.parametrize("case", REAL)
def test_a_class_with_few_images_uses_them_again_in_the_same_order(case: str) -> None:
    made = started(case, batches(5), count=2)
    for label in range(CLASSES):
        first, second, *more = (made[ImageId(label, f"class_{label}", n)] for n in range(5))
        assert first != second
        assert more == [first, second, first]


@pytest.mark.parametrize("case", COMPARED)
def test_starts_do_not_depend_on_the_worker_or_the_order(case: str) -> None:
    assert started(case, batches(4)) == started(case, batches(4)[::-1])


@pytest.mark.parametrize("case", RANKED)
def test_a_bfloat16_teacher_ranks_alike_in_any_order(case: str) -> None:
    """Rounded scores may order a class otherwise: precision is in the key of every image."""
    narrow, exact = (started(case, batches(4), precision=p) for p in ("bfloat16", "float32"))
    assert narrow == started(case, batches(4)[::-1], precision="bfloat16")
    assert narrow.keys() == exact.keys()
    if case != "tiles":
        known = {image.tobytes(): row // PER_CLASS for row, image in enumerate(POOL)}
        assert all(known[start] == image.label for image, start in narrow.items())


@pytest.mark.parametrize("case", [*REAL, "tiles"])
def test_a_start_does_not_depend_on_what_shares_its_batch(case: str) -> None:
    images = [image for batch in batches(4) for image in batch]
    by_class = [tuple(i for i in images if i.label == label) for label in range(CLASSES)]
    assert started(case, batches(4)) == started(case, by_class)


@pytest.mark.parametrize("case", COMPARED)
def test_more_images_per_class_keep_the_existing_starts(case: str) -> None:
    few, more = started(case, batches(3), reach=3), started(case, batches(6), reach=6)
    assert few == {image: more[image] for image in few}


@pytest.mark.parametrize("case", COMPARED)
def test_only_random_starts_depend_on_the_seed(case: str) -> None:
    drawn = case in ("gaussian", "real", "judged", "tiles")
    assert (started(case, batches(3)) != started(case, batches(3), seed=1)) == drawn


@pytest.mark.parametrize("case", REAL)
def test_a_class_without_real_images_is_named(case: str) -> None:
    with pytest.raises(DataError, match=r"class class_0: no real image to start from.*gaussian"):
        starts(case, count=0).of(tiny_batch())


FEATURES = generator(5).standard_normal((12, 3))


def test_herding_keeps_its_running_mean_as_close_to_the_mean_as_any_next_image_can() -> None:
    chosen, mean = herding(FEATURES, 12).tolist(), FEATURES.mean(axis=0)
    assert sorted(chosen) == list(range(12))
    for turn in range(12):
        rest = [n for n in range(12) if n not in chosen[:turn]]
        gaps = [np.linalg.norm(FEATURES[[*chosen[:turn], n]].mean(axis=0) - mean) for n in rest]
        assert chosen[turn] == rest[int(np.argmin(gaps))]


def radius(centres: Sequence[int]) -> float:
    """Return how far the farthest image is from its closest centre."""
    gaps = np.linalg.norm(FEATURES[:, None] - FEATURES[list(centres)][None], axis=2)
    return float(gaps.min(axis=1).max())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_k_center_is_within_twice_the_smallest_radius_there_is(count: int) -> None:
    best = min(radius(centres) for centres in combinations(range(12), count))
    assert radius(k_center(FEATURES, count).tolist()) <= 2 * best


def test_selecting_all_images_selects_each_once_even_if_they_are_equal() -> None:
    for select in (herding, k_center):
        assert sorted(select(np.ones((4, 2)), 9).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("case", REAL)
@pytest.mark.parametrize("count", [1, 2, PER_CLASS])
def test_the_number_of_different_images_is_known_without_making_them(case: str, count: int) -> None:
    made = started(case, batches(5), count=count)
    stated = distinct_images(config(case), np.full(CLASSES, count), ipc=5)
    if case in COUNTED:
        assert len(set(made.values())) == stated
    else:
        assert stated is None


def test_optimised_images_are_not_counted() -> None:
    optimised = tiny_recover("recover.init=real", "recover.steps=4")
    assert distinct_images(optimised, np.ones(3, int), ipc=5) is None


def test_classes_that_are_too_small_are_named_smallest_first() -> None:
    assert too_small(np.array([5, 2, 9, 1, 4]), ipc=5).tolist() == [3, 1, 4]
