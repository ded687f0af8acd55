"""What real images of a class do to a teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core import class_statistics
from distill_core.class_statistics import decode_statistics, encode_statistics, measure_class
from distill_core.errors import DataError
from distill_core.pixel_space import PixelSpace
from tests.core.tiny import SIDE, tiny_teacher

NAMES = ("cat", "dog")


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE)).astype(np.uint8)


def test_the_moments_of_a_class_are_those_of_all_its_images_together() -> None:
    teacher, pixels = tiny_teacher("float64"), images(7)
    space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, teacher.head.weight)
    convolution = next(m for m in teacher.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    seen = convolution(space.normalise(torch.from_numpy(pixels))).transpose(0, 1).flatten(1)
    mean, var = measure_class(pixels, teacher, device="cpu")[0]
    np.testing.assert_allclose(mean, seen.mean(dim=1).numpy(), atol=1e-12)
    np.testing.assert_allclose(var, seen.var(dim=1, unbiased=False).numpy(), atol=1e-12)


def test_many_images_are_measured_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, pixels = tiny_teacher("float64"), images(7)
    whole = measure_class(pixels, teacher, device="cpu")
    monkeypatch.setattr(class_statistics, "FORWARD_BATCH", 3)
    for (mean, var), (mean_, var_) in zip(
        whole, measure_class(pixels, teacher, device="cpu"), strict=True
    ):
        np.testing.assert_allclose(mean, mean_, atol=1e-10)
        np.testing.assert_allclose(var, var_, atol=1e-10)


def two_classes() -> bytes:
    measured = [measure_class(images(3, seed), tiny_teacher(), device="cpu") for seed in (0, 1)]
    return encode_statistics(NAMES, measured)


def test_a_file_gives_back_what_was_measured() -> None:
    read = decode_statistics(two_classes())
    assert read.wnids == NAMES
    expected = measure_class(images(3, 1), tiny_teacher(), device="cpu")
    for (mean, var), (mean_, var_) in zip(read.of(["dog"]), expected, strict=True):
        np.testing.assert_allclose(mean, mean_, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(var, var_, rtol=1e-6, atol=1e-6)
    assert two_classes() == two_classes()


def test_a_batch_of_several_classes_is_held_against_their_average() -> None:
    read = decode_statistics(two_classes())
    one, other, both = (read.of(names)[0][0] for names in (["cat"], ["dog"], NAMES))
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5, atol=1e-6)


def test_a_class_of_another_block_is_refused() -> None:
    with pytest.raises(DataError, match="no class 'owl' among cat to dog"):
        decode_statistics(two_classes()).of(["cat", "owl"])


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, two_classes()[:-5]])
def test_bytes_that_are_no_statistics_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="no class statistics"):
        decode_statistics(data)
