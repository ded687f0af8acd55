"""Batches that share a launch give the same numbers as alone, whatever else is in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batching import LAUNCH_IMAGES, launch_size, launches
from distill_core.sharding import Batch, ImageId
from tests.support.recovered_batches import AXES, BATCHES, RAGGED, together
from tests.support.tiny import CLASSES, SIDE, tiny_batch, tiny_recover, tiny_teacher


@pytest.mark.parametrize("batches", [BATCHES, RAGGED], ids=["equal", "ragged"])
@pytest.mark.parametrize("axis", AXES)
def test_a_batch_gives_the_same_bytes_alone_and_in_a_launch(
    axis: str, batches: list[Batch]
) -> None:
    alone = [together([batch], *AXES[axis])[0] for batch in batches]
    for one, other in zip(alone, together(batches, *AXES[axis]), strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.trace == other.trace
        for name, values in one.losses.items():
            assert np.array_equal(values, other.losses[name])
        for (*at, here), (*there, then) in zip(one.snapshots, other.snapshots, strict=True):
            assert at == there
            assert np.array_equal(here, then)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 4, 3)], ids=str)
def test_statistics_and_gradients_of_groups_equal_those_of_each_group_alone(
    sizes: tuple[int, ...],
) -> None:
    teacher, draws = tiny_teacher("float64"), torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, SIDE, SIDE, generator=draws, dtype=torch.float64).requires_grad_()

    def loss(x: torch.Tensor, *sizes: int) -> torch.Tensor:
        said = teacher.of_groups(x, sizes, statistics=True)
        gaps = [(s.mean - s.running_mean).norm() + s.var.norm() for t in said for s in t.statistics]
        return torch.stack([*gaps, *(t.logits.square().sum() for t in said)]).sum()

    (ours,) = torch.autograd.grad(loss(x, *sizes), x)
    parts = torch.stack([loss(part, len(part)) for part in x.split(list(sizes))])
    (theirs,) = torch.autograd.grad(parts.sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_one_launch_is_one_pass_through_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    pass_through = FrozenTeacher.of_groups

    def counted(self: FrozenTeacher, x: torch.Tensor, groups: list[int], **how: Any) -> Any:
        sizes.append(tuple(groups))
        return pass_through(self, x, groups, **how)

    monkeypatch.setattr(FrozenTeacher, "of_groups", counted)
    together(BATCHES, "recover.steps=5")
    assert sizes[:5] == [(CLASSES,) * 4] * 5


def test_a_launch_holds_neighbouring_batches_of_any_size() -> None:
    config, ragged = tiny_recover(), [*BATCHES, tiny_batch(4, classes=2), tiny_batch(5, classes=2)]
    assert launches(ragged, config, groups=4) == ((0, 1, 2, 3), (4, 5))
    assert launches(ragged, config, groups=1) == tuple((n,) for n in range(6))


def test_images_that_join_at_other_steps_share_a_launch_and_keep_their_bytes() -> None:
    late = ("recover.late_groups=2", "recover.ipc_range=4")
    mixed: list[Batch] = [
        (ImageId(0, "class_0", 0), ImageId(0, "class_0", 3), ImageId(2, "class_2", 3)),
        (ImageId(1, "class_1", 0), ImageId(1, "class_1", 1)),
    ]
    assert launches(mixed, tiny_recover(*late), groups=2) == ((0, 1),)
    for batch, made in zip(mixed, together(mixed, *late), strict=True):
        assert np.array_equal(made.pixels, together([batch], *late)[0].pixels)


def test_batches_with_perturbed_teachers_are_launched_alone() -> None:
    config = tiny_recover("recover.perturb={radius: 0.1, steps: 2}")
    assert launches(BATCHES, config, groups=4) == ((0,), (1,), (2,), (3,))


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_small_batches_of_small_images_share_a_launch(device: str) -> None:
    filled = LAUNCH_IMAGES[device.partition(":")[0]] // CLASSES
    assert launch_size(tiny_batch(), side=32, device=device) == filled
    assert launch_size(tiny_batch(), side=64, device=device) == filled // 4
    assert launch_size(tiny_batch() * 2, side=224, device=device) == 1
