"""Properties of every loss term."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch

from distill_core.config.fields import Precision
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover import terms
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.terms import TERMS
from tests.support.term_bench import (
    batch,
    config_of,
    expected,
    noise,
    step,
    student_of,
    teacher_of,
)

TOLERANCE = 0.05  # of a value under bfloat16: relative to float32, absolute for values below 1


@dataclass(frozen=True)
class Reach:
    """The images of a batch with a gradient under a term, and their dependence on the others."""

    rows: Literal["all", "of classes with several images", "that the teacher gets right"]
    # alone: what is asked of an image does not depend on the others of its batch
    coupling: Literal["alone", "pooled"]


ALONE, POOLED = Reach("all", "alone"), Reach("all", "pooled")
REACH: Mapping[str, Reach] = {
    "cross_entropy": ALONE,
    "adversarial": Reach("that the teacher gets right", "alone"),
    "bn_statistics": POOLED,
    "relative_bn_statistics": POOLED,
    "class_bn_statistics": POOLED,
    "conv_statistics": POOLED,
    "class_conv_statistics": POOLED,
    "patch_statistics": POOLED,
    "class_patch_statistics": POOLED,
    "feature_barycentre": POOLED,  # through the norm over the whole batch
    "feature_originals": ALONE,
    "start_distance": ALONE,
    "flatness": ALONE,
    "density": Reach("of classes with several images", "pooled"),
}
every_term = pytest.mark.parametrize("term", sorted(TERMS))


def test_the_table_has_every_term() -> None:
    assert REACH.keys() == TERMS.keys()


@every_term
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_a_term_is_a_finite_scalar_with_a_finite_gradient(term: str, precision: Precision) -> None:
    done = step(term, precision=precision)  # which stacks it with its sum: no scalar, no step
    assert math.isfinite(done.value)
    assert done.value > 0
    assert done.gradients[0].isfinite().all()


@every_term
def test_its_gradient_reaches_the_rows_of_the_table_and_no_other_batch(term: str) -> None:
    taken = step(term, weights=(1.0, 0.0))
    here, there = taken.gradients
    labels = np.array([image.label for image in batch()])
    moved = {
        "all": np.ones(len(labels), bool),
        "of classes with several images": np.bincount(labels)[labels] > 1,
        "that the teacher gets right": taken.right,
    }
    reached = here.flatten(1).norm(dim=1).numpy() > 0
    assert reached.any()
    np.testing.assert_array_equal(reached, moved[REACH[term].rows])
    assert not there.any()


@every_term
def test_a_gradient_is_independent_of_other_images_only_where_the_table_states_it(
    term: str,
) -> None:
    beside = [noise(5, 2), np.concatenate([noise(5, 2)[:1], noise(4, 9)])]
    taken = [step(term, precision="float64", pixels=[pixels]) for pixels in beside]
    one, two = (done.gradients[0][0] for done in taken)
    same = torch.allclose(one, two, rtol=1e-9, atol=1e-14)
    assert same == (REACH[term].coupling == "alone")


@every_term
def test_equal_inputs_in_new_objects_give_the_same_bytes(term: str) -> None:
    config = config_of(term)

    def made() -> Any:
        four = config.model_copy(update={"steps": 4})
        setup = RecoverySetup(four, [teacher_of()], seed=0, student=student_of())
        real = [expected(batch(), config)]
        return recover_batch(batch(), setup, start=noise(5, 2), real=real)

    first, again = made(), made()
    assert np.array_equal(first.pixels, again.pixels)
    assert first.trace == again.trace


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    """Return every value as a fresh process finds it."""
    command = [sys.executable, "-m", "tests.support.term_bench"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(said.stdout)
    return found


@every_term
def test_another_process_computes_the_same_value(term: str, elsewhere: dict[str, str]) -> None:
    assert step(term).value.hex() == elsewhere[term]


@every_term
def test_a_term_has_the_same_value_in_a_launch_with_other_batches(term: str) -> None:
    alone, shared = step(term), step(term, weights=(1.0, 1.0, 1.0))
    assert alone.value == shared.value
    assert torch.equal(alone.gradients[0], shared.gradients[0])


@every_term
def test_values_in_bfloat16_are_close_to_those_in_float32(term: str) -> None:
    wide, narrow = step(term), step(term, precision="bfloat16")
    assert narrow.value == pytest.approx(wide.value, rel=TOLERANCE, abs=TOLERANCE)


@every_term
def test_a_term_of_weight_zero_is_neither_computed_nor_measured(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(forward: terms.Forward) -> torch.Tensor:
        raise AssertionError(f"{term} was computed")

    asked = []
    describe = FrozenTeacher.of_groups

    def spy(self: FrozenTeacher, x: torch.Tensor, sizes: list[int], **how: Any) -> Any:
        asked.append((how.get("statistics", False), how.get("probe")))
        return describe(self, x, sizes, **how)

    other = "density" if term == "cross_entropy" else "cross_entropy"
    config = config_of(other, **{term: 0.0})
    assert not config.needs_class_statistics
    monkeypatch.setitem(TERMS, term, refuse)
    monkeypatch.setattr(FrozenTeacher, "of_groups", spy)
    single = config.model_copy(update={"steps": 1})
    setup = RecoverySetup(single, [teacher_of()], seed=0, student=student_of())
    made = recover_batch(batch(), setup, start=noise(5, 2))
    assert made.trace[0].keys() == {"step", "low", "lr", other, "total"}
    assert asked[:-1] == [(False, None)]  # the last look is at the finished images
