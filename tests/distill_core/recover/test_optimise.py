from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.errors import ConfigError, DataError, DivergedError
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.goals import Goal
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.step import Part, recover_step
from distill_core.recover.terms import Forward, bn_statistics, build_objective
from distill_core.seeds import generator, philox_key
from distill_core.selection.class_images import ClassImages
from distill_core.selection.starts import choose_real_rows, gaussian
from distill_core.transforms.curricula import crop_low
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.views import sample_view, sampling_grid
from tests.support.tiny import MEAN, SIDE, STD, tiny_batch, tiny_recover, tiny_teacher
from tests.support.torchvision_views import torchvision_view


def recover(
    *overrides: str, seed: int = 0, teachers: Sequence[FrozenTeacher] = (), **changes: Any
) -> RecoveredBatch:
    setup = RecoverySetup(tiny_recover(*overrides), teachers or [tiny_teacher()], seed)
    return recover_batch(tiny_batch(), setup, **changes)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = recover(), recover(), recover(seed=1)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.trace == again.trace
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("shared", [True, False], ids=["one view", "a view per image"])
def test_recovery_equals_the_published_loop(shared: bool) -> None:
    """An lr of 2 drives pixels into the walls of the box, so the projection matters too."""
    steps, lr, factor, batch = 6, 2.0, 10.0, tiny_batch()
    config = tiny_recover(
        f"recover.steps={steps}", f"recover.lr={lr}", f"recover.shared_view={str(shared).lower()}"
    )
    assert config.crop is not None
    teacher = tiny_teacher("float64")
    corners = [[(bound - m) / s for m, s in zip(MEAN, STD, strict=True)] for bound in (0, 1)]
    low, high = (torch.tensor(c, dtype=torch.float64).view(1, 3, 1, 1) for c in corners)
    noise = generator(philox_key(0, "recover", "start", batch), 0)
    images = torch.from_numpy(
        noise.standard_normal((4, 3, SIDE, SIDE), dtype=np.float32).astype(np.float64)
    ).requires_grad_(True)
    adam = torch.optim.Adam([images], lr=lr, betas=(0.5, 0.9), eps=1e-8)
    totals = []
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        view = sample_view(
            generator(philox_key(0, "recover", "views", batch), step),
            count=1 if shared else 4,
            side=SIDE,
            scale=(crop_low(config.crop, step, steps), 1.0),
            flip=True,
            roll=config.roll,
        )
        view = view.repeated(4) if shared else view
        pixels = torch.stack([torchvision_view(images[n], view, n, SIDE) for n in range(4)])
        output = teacher(pixels, statistics=True)
        gaps = [
            (s.running_mean - s.mean).norm() + (s.running_var - s.var).norm()
            for s in output.statistics
        ]
        total = torch.nn.functional.cross_entropy(output.logits, torch.arange(4))
        total = total + config.terms["bn_statistics"] * (factor * gaps[0] + sum(gaps[1:]))
        adam.zero_grad()
        total.backward()
        adam.step()
        with torch.no_grad():
            images.copy_(images.maximum(low).minimum(high))
        totals.append(total.item())
    made = recover_batch(batch, RecoverySetup(config, [teacher], seed=0))
    std, mean = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (STD, MEAN))
    levels = ((images.detach() * std + mean) * 255).round()
    assert [point["total"] for point in made.trace] == pytest.approx(totals, rel=1e-9)
    assert np.array_equal(made.pixels, levels.numpy().astype(np.uint8))
    assert (images == low).any()
    assert (images == high).any()


@pytest.mark.parametrize("term", ["cross_entropy", "bn_statistics"])
def test_recovery_lowers_each_term(term: str) -> None:
    terms = f"recover.terms={{{term}: 1.0}}"
    trace = recover(
        terms, "recover.steps=60", "recover.crop=null", "recover.roll={mode: off}"
    ).trace
    assert trace[-1][term] < 0.9 * trace[0][term]


def test_zero_steps_give_a_real_start_back_bit_for_bit() -> None:
    every = np.arange(4 * 3 * SIDE * SIDE, dtype=np.int64) % 256
    real = every.astype(np.uint8).reshape(4, 3, SIDE, SIDE)
    made = recover("recover.init=real", "recover.steps=0", start=real)
    assert np.array_equal(made.pixels, real)
    assert made.trace == ()


def test_trace_and_snapshots_cover_the_recovery_from_first_to_last_step() -> None:
    made = recover()
    assert [point["step"] for point in made.trace] == list(range(20))
    assert made.trace[0]["low"] == 1.0
    assert [step for step, _, _ in made.snapshots] == [0, 1, 5, 10, 20]


def test_the_trace_holds_the_schedules_and_the_weighted_sum() -> None:
    config, trace = tiny_recover(), recover().trace
    assert config.crop is not None
    weights = config.terms.items()
    for step, point in enumerate(trace):
        assert point["low"] == crop_low(config.crop, step, 20)
        assert point["lr"] == pytest.approx(config.lr * (1 + math.cos(math.pi * step / 20)) / 2)
        assert point["total"] == pytest.approx(sum(w * point[name] for name, w in weights))
    assert trace[10]["lr"] == pytest.approx(config.lr / 2)


def test_final_losses_are_those_of_the_stored_pixels() -> None:
    made, teacher = recover(), tiny_teacher()
    space = PixelSpace.of(MEAN, STD, torch.empty(0))
    output = teacher(space.normalise(torch.from_numpy(made.pixels)), statistics=True)
    entropy = [-output.logits.log_softmax(1)[n, n].item() for n in range(4)]
    gap = bn_statistics(Forward(output.logits, torch.arange(4), output, tiny_recover())).item()
    assert made.losses["cross_entropy"].tolist() == pytest.approx(entropy, rel=1e-5)
    assert made.losses["bn_statistics"].tolist() == pytest.approx([gap] * 4, rel=1e-5)


def test_recovery_leaves_the_teacher_unchanged_and_without_gradients() -> None:
    teacher = tiny_teacher()
    before = [value.clone() for value in teacher.state_dict().values()]
    recover(teachers=[teacher])
    assert all(map(torch.equal, before, teacher.state_dict().values()))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_bfloat16_stays_close_to_float32_at_the_start() -> None:
    exact, rough = recover().trace[0], recover(teachers=[tiny_teacher("bfloat16")]).trace[0]
    assert rough["total"] == pytest.approx(exact["total"], rel=0.05)


def test_initial_noise_depends_on_the_batch_and_not_on_the_order_of_work() -> None:
    alone = gaussian(tiny_batch(3), SIDE, seed=0)
    gaussian(tiny_batch(2), SIDE, seed=0)
    assert np.array_equal(alone, gaussian(tiny_batch(3), SIDE, seed=0))
    assert not np.array_equal(alone, gaussian(tiny_batch(2), SIDE, seed=0))
    assert abs(alone.mean()) < 0.1
    assert abs(alone.std() - 1) < 0.1
    assert np.abs(alone).max() > 3  # not clamped to the valid box, as published


def test_every_pixel_level_is_unchanged_by_normalising_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    space = PixelSpace.of(MEAN, STD, torch.empty(0))
    assert torch.equal(space.quantise(space.normalise(levels)), levels)


def test_float64_pixels_are_normalised_in_float64() -> None:
    space = PixelSpace.of(MEAN, STD, torch.empty(0, dtype=torch.float64))
    black = space.normalise(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)).flatten().tolist()
    assert black == pytest.approx([-m / s for m, s in zip(MEAN, STD, strict=True)], rel=1e-15)


def test_a_step_projects_onto_the_valid_box_of_each_channel() -> None:
    space = PixelSpace.of((0.5, 0.4, 0.1), STD, torch.empty(0))
    images = torch.zeros(4, 3, SIDE, SIDE, requires_grad=True)
    objective = build_objective({"cross_entropy": 1.0})
    view = sample_view(generator(0), count=4, side=SIDE, scale=None, flip=False)
    part = Part(
        [images],
        Goal(torch.arange(4), tiny_teacher(), objective, space, tiny_recover()),
        torch.optim.Adam([images], lr=100.0),
        sampling_grid(view, out=SIDE, like=images),
    )
    recover_step([part])
    corners = torch.stack([images.amin((0, 2, 3)), images.amax((0, 2, 3))]).detach()
    expected = torch.tensor([[-2.0, -1.6, -0.4], [2.0, 2.4, 3.6]])
    torch.testing.assert_close(corners, expected)


def test_real_starts_repeat_no_image_before_all_are_used() -> None:
    rows = {label: np.arange(10 * label, 10 * label + 3) for label in range(4)}
    images = ClassImages(rows.__getitem__, lambda rows: np.empty((len(rows), 3, SIDE, SIDE)))
    chosen = [choose_real_rows(tiny_batch(i), images, seed=0) for i in range(4)]
    for label in range(4):
        column = [row[label] for row in chosen]
        assert set(column[:3]) == set(rows[label])
        assert column[3] == column[0]


def test_a_class_without_real_images_is_named() -> None:
    with pytest.raises(DataError, match="class_0: no real image"):
        choose_real_rows(tiny_batch(), ClassImages(lambda _: np.empty(0), np.array), seed=0)


def test_a_loss_that_is_not_finite_names_the_batch() -> None:
    with pytest.raises(DivergedError, match=r"class_0/0 \.\. class_3/0"):
        recover("recover.terms={cross_entropy: 1.0e300, bn_statistics: 1.0e300}")


def test_statistics_without_batch_norm_are_refused() -> None:
    teacher = tiny_teacher()
    teacher.num_statistics = 0
    with pytest.raises(ConfigError, match="no batch norm layer"):
        recover(teachers=[teacher])
