from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.errors import ConfigError, DataError, DivergedError
from distill_core.recover.engine import RecoveredBatch, recover_batch
from distill_core.recover.start import PixelSpace, choose_real_rows, gaussian
from tests.core.tiny import MEAN, SIDE, STD, tiny_batch, tiny_recover, tiny_teacher


def recover(*overrides: str, seed: int = 0, **changes: object) -> RecoveredBatch:
    arguments = {
        "config": tiny_recover(*overrides),
        "teacher": tiny_teacher(),
        "seed": seed,
        "start": None,
        "device": "cpu",
    } | changes
    return recover_batch(tiny_batch(), **arguments)  # type: ignore[arg-type]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = recover(), recover(), recover(seed=1)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.trace == again.trace
    assert not np.array_equal(first.pixels, other.pixels)


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


def test_trace_and_snapshots_span_the_recovery() -> None:
    made = recover()
    assert [point["step"] for point in made.trace] == list(range(20))
    assert made.trace[0]["low"] == 1.0
    assert [step for step, _, _ in made.snapshots] == [0, 1, 5, 10, 20]
    assert made.losses["cross_entropy"].shape == (4,)


def test_weights_are_frozen() -> None:
    teacher = tiny_teacher()
    before = [value.clone() for value in teacher.state_dict().values()]
    recover(teacher=teacher)
    assert all(map(torch.equal, before, teacher.state_dict().values()))


def test_bfloat16_stays_close_to_float32_at_the_start() -> None:
    exact, rough = recover().trace[0], recover(teacher=tiny_teacher("bfloat16")).trace[0]
    assert rough["total"] == pytest.approx(exact["total"], rel=0.05)


def test_the_noise_is_that_of_the_batch_and_not_of_its_place_in_a_queue() -> None:
    alone = gaussian(tiny_batch(3), SIDE, seed=0)
    gaussian(tiny_batch(2), SIDE, seed=0)
    assert np.array_equal(alone, gaussian(tiny_batch(3), SIDE, seed=0))
    assert not np.array_equal(alone, gaussian(tiny_batch(2), SIDE, seed=0))
    assert abs(alone.mean()) < 0.1
    assert abs(alone.std() - 1) < 0.1


def test_every_pixel_level_survives_the_trip_through_normalised_space() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    space = PixelSpace.of(MEAN, STD, torch.empty(0))
    assert torch.equal(space.quantise(space.normalise(levels)), levels)


def test_pixels_stay_in_the_valid_box() -> None:
    made = recover("recover.lr=5.0")
    assert made.pixels.min() == 0
    assert made.pixels.max() == 255


def test_real_starts_repeat_no_image_before_all_are_used() -> None:
    rows = {label: np.arange(10 * label, 10 * label + 3) for label in range(4)}
    chosen = [choose_real_rows(tiny_batch(i), rows.__getitem__, seed=0) for i in range(4)]
    for label in range(4):
        column = [row[label] for row in chosen]
        assert set(column[:3]) == set(rows[label])
        assert column[3] == column[0]


def test_a_class_without_real_images_is_named() -> None:
    with pytest.raises(DataError, match="class_0: no real image"):
        choose_real_rows(tiny_batch(), lambda label: [], seed=0)


def test_a_loss_that_is_not_finite_names_the_batch() -> None:
    with pytest.raises(DivergedError, match=r"class_0/0 \.\. class_3/0"):
        recover("recover.terms={cross_entropy: 1.0e300, bn_statistics: 1.0e300}")


def test_statistics_without_batch_norm_are_refused() -> None:
    teacher = tiny_teacher()
    teacher.num_statistics = 0
    with pytest.raises(ConfigError, match="no batch norm layer"):
        recover(teacher=teacher)
