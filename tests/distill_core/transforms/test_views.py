from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from distill_core.config.recovery_settings import RollConfig
from distill_core.errors import DataError
from distill_core.seeds import generator
from distill_core.transforms.views import View, apply_view, resample, sample_view, sampling_grid
from tests.support.torchvision_views import torchvision_view

SYMMETRIC = RollConfig(mode="symmetric", pixels=4)


def view_of(boxes: list[list[int]], flips: list[bool], rolls: list[list[int]]) -> View:
    return View(np.array(boxes, np.int32), np.array(flips), np.array(rolls, np.int32))


@st.composite
def draws(draw: st.DrawFn) -> tuple[View, int, int]:
    side, out = draw(st.integers(2, 24)), draw(st.integers(1, 24))
    boxes, flips, rolls = [], [], []
    for _ in range(3):
        height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
        top, left = draw(st.integers(0, side - height)), draw(st.integers(0, side - width))
        boxes.append([top, left, height, width])
        flips.append(draw(st.booleans()))
        rolls.append([draw(st.integers(-5, 40)), draw(st.integers(-5, 40))])
    return view_of(boxes, flips, rolls), side, out


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)], ids=["f64", "f32"]
)
@settings(max_examples=60, deadline=None)
@given(case=draws())
def test_equals_torchvision_crop_then_flip_then_roll(
    dtype: torch.dtype, tolerance: float, case: tuple[View, int, int]
) -> None:
    view, side, out = case
    images = torch.randn(3, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(0))
    ours = apply_view(images, view, out=out)
    for n in range(3):
        torch.testing.assert_close(
            ours[n], torchvision_view(images[n], view, n, out), atol=tolerance, rtol=0
        )


def test_the_gradient_equals_that_of_torchvision() -> None:
    view = sample_view(generator(1), count=2, side=16, scale=(0.08, 1.0), flip=True, roll=SYMMETRIC)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    (ours,) = torch.autograd.grad((apply_view(images, view, out=16) * weight).sum(), images)
    theirs = torch.stack([torchvision_view(images[n], view, n, 16) for n in range(2)])
    (expected,) = torch.autograd.grad((theirs * weight).sum(), images)
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("scale", [(0.08, 1.0), None], ids=["cropped", "whole"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "each"])
@pytest.mark.parametrize("mode", ["off", "one_sided", "symmetric"])
def test_the_same_draw_gives_the_same_pixels_and_another_step_another_draw(
    mode: Literal["off", "one_sided", "symmetric"], shared: bool, scale: tuple[float, float] | None
) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    roll = RollConfig(mode=mode, pixels=8)

    def seen(*seed: int) -> torch.Tensor:
        count = 1 if shared else 4
        view = sample_view(
            generator(*seed), count=count, side=32, scale=scale, flip=True, roll=roll
        )
        return apply_view(images, view.repeated(4) if shared else view, out=32)

    assert torch.equal(seen(7, 0), seen(7, 0))
    others = [not torch.equal(seen(7, 0), seen(7, step)) for step in range(1, 9)]
    assert any(others)
    assert all(others) or scale is None  # of a flip alone there are two


def test_a_shared_view_is_one_draw_and_reads_its_window_alone() -> None:
    single = sample_view(generator(3), count=1, side=32, scale=(0.08, 1), flip=True, roll=SYMMETRIC)
    view = single.repeated(5)
    assert len(view.boxes) == len(view.flips) == len(view.rolls) == 5
    assert (view.boxes == view.boxes[:1]).all()
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    grid = sampling_grid(view, out=32, like=images)
    assert grid.first.shape == grid.share.shape == (2, 1, 32)
    assert grid.window is not None
    rows, columns = grid.window
    beyond = images.clone()
    beyond[:, :, rows, columns] = 0
    seen = resample(images, grid)
    assert torch.equal(resample(images - beyond, grid), seen)
    torch.testing.assert_close(resample(images, grid.whole()), seen, atol=1e-12, rtol=0)


def test_equal_boxes_with_different_flips_or_rolls_are_not_shared_views() -> None:
    image = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = image.expand(3, 3, 8, 8)
    view = view_of([[1, 2, 5, 4]] * 3, [False, True, False], [[0, 0], [0, 0], [2, 0]])
    ours = apply_view(images, view, out=8)
    for n in range(3):
        torch.testing.assert_close(ours[n], torchvision_view(image, view, n, 8), atol=1e-10, rtol=0)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0), (1.0, 1.0)])
def test_boxes_are_distributed_as_those_of_torchvision(scale: tuple[float, float]) -> None:
    count, image = 2000, torch.empty(3, 64, 64)
    ours = sample_view(generator(0), count=count, side=64, scale=scale, flip=False).boxes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = RandomResizedCrop.get_params
        theirs = np.array([draw(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)])
    # Five standard errors of a difference of means; the floor is for boxes that never vary.
    error = 5 * np.sqrt((ours.var(0) + theirs.var(0)) / count) + 1e-9
    assert (np.abs(ours.mean(0) - theirs.mean(0)) <= error).all()
    assert (np.abs(ours.std(0) - theirs.std(0)) <= error).all()


def test_boxes_reach_every_edge_of_the_image() -> None:
    boxes = sample_view(generator(0), count=2000, side=16, scale=(0.2, 0.6), flip=False).boxes
    top, left, height, width = boxes.T
    assert (top.min(), left.min()) == (0, 0)
    assert ((top + height).max(), (left + width).max()) == (16, 16)
    fits = height < 16
    assert (top + height == 16)[fits].any()


def test_boxes_lie_inside_and_have_legal_areas_and_ratios() -> None:
    boxes = sample_view(generator(0), count=5000, side=64, scale=(0.25, 0.5), flip=False).boxes
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 64).all()
    assert (left + width <= 64).all()
    area, ratio = height * width / 64**2, width / height
    assert 0.24 < area.min() < 0.27
    assert 0.48 < area.max() < 0.52
    assert 0.7 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.4


def test_without_crop_flip_and_roll_nothing_changes() -> None:
    images = torch.randn(2, 3, 8, 8)
    view = sample_view(generator(0), count=2, side=8, scale=None, flip=False)
    assert torch.equal(apply_view(images, view, out=8), images)


@pytest.mark.parametrize(
    ("roll", "low", "high"),
    [
        (RollConfig(mode="one_sided", pixels=3), 0, 3),
        (RollConfig(mode="symmetric", pixels=3), -3, 3),
        (RollConfig(mode="off", pixels=3), 0, 0),
    ],
)
def test_rolls_reach_both_ends_of_their_range(roll: RollConfig, low: int, high: int) -> None:
    rolls = sample_view(generator(0), count=500, side=8, scale=None, flip=False, roll=roll).rolls
    assert (rolls.min(), rolls.max()) == (low, high)


def test_a_view_for_another_number_of_images_is_refused() -> None:
    view = sample_view(generator(0), count=2, side=8, scale=None, flip=False)
    with pytest.raises(DataError, match="drawn for 2 images, applied to 3"):
        apply_view(torch.zeros(3, 3, 8, 8), view, out=8)
