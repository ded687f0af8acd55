from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.config.recovery_settings import CurriculumConfig
from distill_core.transforms.curricula import cosine_lr, crop_low

STEPS = 1000


def low(mode: str, step: int, milestone: float = 1.0, high: float = 1.0) -> float:
    config = CurriculumConfig.model_validate(
        {"mode": mode, "low": 0.08, "high": high, "milestone": milestone}
    )
    return crop_low(config, step, STEPS)


@pytest.mark.parametrize(
    ("mode", "start", "middle", "end"),
    [
        ("constant", 0.08, 0.08, 0.08),
        ("step", 1.0, 1.0, 0.08),
        ("linear", 1.0, 0.54, 0.08),
        ("cosine", 1.0, 0.54, 0.08),
        ("reverse", 0.08, 0.54, 1.0),
    ],
)
def test_values_at_start_middle_and_end(mode: str, start: float, middle: float, end: float) -> None:
    values = [low(mode, step) for step in (0, STEPS // 2, STEPS)]
    assert values == pytest.approx([start, middle, end], abs=1e-12)


@pytest.mark.parametrize("mode", ["constant", "step", "linear", "cosine"])
def test_with_milestone_zero_every_forward_curriculum_is_constant(mode: str) -> None:
    assert {low(mode, step, milestone=0.0) for step in range(0, STEPS, 50)} == {0.08}


def test_with_milestone_half_the_bound_stays_low_afterwards() -> None:
    assert low("cosine", 250, milestone=0.5) == pytest.approx(0.54)
    assert {low("cosine", step, milestone=0.5) for step in range(500, STEPS)} == {0.08}


def test_reverse_stays_high_after_its_milestone() -> None:
    assert {low("reverse", step, milestone=0.0) for step in range(0, STEPS, 50)} == {1.0}
    assert low("reverse", 0, milestone=0.5) == pytest.approx(0.08)
    assert low("reverse", 250, milestone=0.5) == pytest.approx(0.54)
    assert {low("reverse", step, milestone=0.5) for step in range(500, STEPS)} == {1.0}


@pytest.mark.parametrize(
    ("mode", "start", "middle", "end"),
    [
        ("constant", 0.08, 0.08, 0.08),
        ("step", 0.5, 0.5, 0.08),
        ("linear", 0.5, 0.29, 0.08),
        ("cosine", 0.5, 0.29, 0.08),
        ("reverse", 0.08, 0.29, 0.5),
    ],
)
def test_the_upper_bound_is_that_of_the_config(
    mode: str, start: float, middle: float, end: float
) -> None:
    values = [low(mode, step, high=0.5) for step in (0, STEPS // 2, STEPS)]
    assert values == pytest.approx([start, middle, end], abs=1e-12)


@pytest.mark.parametrize("mode", ["step", "linear", "cosine"])
@given(step=st.integers(0, STEPS - 1), milestone=st.floats(0, 1))
def test_forward_curricula_never_rise_and_stay_in_bounds(
    mode: str, step: int, milestone: float
) -> None:
    now, later = low(mode, step, milestone), low(mode, step + 1, milestone)
    assert 0.08 <= later <= now <= 1.0


@given(step=st.integers(0, STEPS))
def test_reverse_mirrors_cosine(step: int) -> None:
    assert low("reverse", step) == pytest.approx(low("cosine", STEPS - step))


def test_the_learning_rate_goes_from_its_value_to_zero() -> None:
    assert cosine_lr(0.25, 0, STEPS) == 0.25
    assert cosine_lr(0.25, STEPS // 2, STEPS) == pytest.approx(0.125)
    assert cosine_lr(0.25, STEPS, STEPS) == pytest.approx(0.0)
