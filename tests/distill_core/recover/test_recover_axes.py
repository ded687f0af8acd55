"""Segments, residuals, late groups, perturbed teachers, and terms that compare images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.config.recovery import RecoverConfig
from distill_core.errors import ConfigError
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.recover.batch import RecoveredBatch, resized
from distill_core.recover.optimise import recover_batch
from distill_core.recover.pixels import joins_at, late_groups, segments_of
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.terms import Forward
from distill_core.recover.terms.pixels import density, start_distance
from distill_core.recover.terms.prediction import adversarial, flatness
from distill_core.recover.weight_perturbation import perturbed
from distill_core.sharding import Batch, ImageId
from tests.support.tiny import SIDE, tiny_batch, tiny_recover, tiny_teacher

REAL = (np.arange(4 * 3 * SIDE * SIDE, dtype=np.int64) * 7 % 256).astype(np.uint8)
PLAIN = tiny_recover()
STILL = ("recover.crop=null", "recover.flip=false", "recover.roll={mode: off}")


def recover(
    *overrides: str,
    batch: Batch | None = None,
    teachers: Sequence[FrozenTeacher] = (),
    student: FrozenTeacher | None = None,
    config: RecoverConfig | None = None,
    **changes: Any,
) -> RecoveredBatch:
    setup = RecoverySetup(
        config or tiny_recover(*overrides), teachers or [tiny_teacher()], seed=0, student=student
    )
    return recover_batch(batch or tiny_batch(), setup, **changes)


def real() -> np.ndarray:
    return REAL.reshape(4, 3, SIDE, SIDE)


def two_per_class() -> Batch:
    return tuple(ImageId(label, f"class_{label}", n) for label in range(2) for n in range(2))


def forward(
    pixels: torch.Tensor, targets: list[int], config: RecoverConfig = PLAIN, **more: object
) -> Forward:
    teacher = tiny_teacher()
    said = teacher(pixels, statistics=True)
    return Forward(pixels, torch.tensor(targets), said, config, **more)  # type: ignore[arg-type]


def test_segments_follow_each_other_and_fall_back_to_the_side_of_the_data() -> None:
    config = tiny_recover("recover.segments=[{steps: 12, side: 12}, {steps: 8}]")
    first, second = segments_of(config, SIDE)
    assert (first.first, first.stop, first.side) == (0, 12, 12)
    assert (second.first, second.stop, second.side) == (12, 20, SIDE)


def test_segments_must_add_up_to_the_steps() -> None:
    with pytest.raises(ConfigError, match="steps = 20, but the segments sum to 19"):
        tiny_recover("recover.segments=[{steps: 19}]")


def test_one_segment_equals_a_recovery_without_segments() -> None:
    assert np.array_equal(recover().pixels, recover("recover.segments=[{steps: 20}]").pixels)


def test_a_new_segment_starts_the_optimiser_afresh() -> None:
    halves = recover("recover.segments=[{steps: 10}, {steps: 10}]")
    assert not np.array_equal(recover().pixels, halves.pixels)
    assert halves.trace[:11] == recover().trace[:11]  # the first loss after the cut is the same


def test_recovered_images_have_the_side_of_the_data_whatever_the_segments() -> None:
    made = recover("recover.segments=[{steps: 12, side: 12}, {steps: 8, side: 24}]")
    assert made.pixels.shape == (4, 3, SIDE, SIDE)
    assert {pixels.shape for _, _, pixels in made.snapshots} == {(3, SIDE, SIDE)}


def test_a_residual_of_one_restores_the_start_between_segments() -> None:
    settings = ("recover.init=real", *STILL, "recover.segments=[{steps: 10}, {steps: 10}]")
    last_half = recover(*settings, "recover.residual=1.0", start=real())
    losses = [point["cross_entropy"] for point in last_half.trace]
    assert losses[10] == pytest.approx(losses[0], rel=1e-6)


def test_groups_follow_from_the_place_in_the_range_not_from_the_batch() -> None:
    batch = tuple(ImageId(0, "class_0", n) for n in (10, 14, 15, 19))
    config = tiny_recover("recover.ipc_range=10", "recover.late_groups=2")
    assert late_groups(batch, config) == ((0, 1), (2, 3))
    assert joins_at((1, 2, 3, 4), 20) == (0, 5, 10, 15)


def test_before_a_late_group_joins_only_the_early_one_is_optimised() -> None:
    settings = ("recover.ipc_range=2", "recover.init=real", *STILL)
    first = np.array([image.ipc_index == 0 for image in two_per_class()])
    early = tuple(image for image in two_per_class() if image.ipc_index == 0)
    late = recover(*settings, "recover.late_groups=2", batch=two_per_class(), start=real())
    alone = recover(*settings, batch=early, start=real()[first])
    together = recover(*settings, batch=two_per_class(), start=real())
    assert late.trace[:10] == alone.trace[:10]
    assert late.trace[10] != alone.trace[10]
    moved = np.abs(late.pixels.astype(int) - real()).mean(axis=(1, 2, 3))
    whole = np.abs(together.pixels.astype(int) - real()).mean(axis=(1, 2, 3))
    assert (moved[~first] > 0).all()
    assert (moved[~first] < whole[~first]).all()  # half of the steps, the smaller ones


def test_start_distance_is_taken_under_the_same_view() -> None:
    """Crops, flips and rolls that differed would leave a distance at the first step."""
    made = recover("recover.terms={start_distance: 1.0}", "recover.init=real", start=real())
    assert [point["start_distance"] for point in made.trace] == [0.0] * 20


def test_start_distance_keeps_images_near_their_start() -> None:
    far = recover("recover.init=real", *STILL, start=real())
    near = recover(
        "recover.init=real",
        *STILL,
        "recover.terms={cross_entropy: 1.0, bn_statistics: 0.01, start_distance: 1000.0}",
        start=real(),
    )

    def distance(made: RecoveredBatch) -> float:
        return float(np.abs(made.pixels.astype(int) - real()).mean())

    assert distance(near) < 0.5 * distance(far)


def test_flatness_needs_its_settings_and_is_zero_at_the_first_step() -> None:
    with pytest.raises(ConfigError, match="flatness is required with the term"):
        tiny_recover("recover.terms={cross_entropy: 1.0, flatness: 0.25}")
    made = recover(
        "recover.terms={cross_entropy: 1.0, flatness: 0.25}",
        "recover.flatness={decay: 0.9, temperature: 4}",
    )
    values = [point["flatness"] for point in made.trace]
    assert values[0] == pytest.approx(0.0, abs=1e-6)
    assert max(values) > 1e-5


def test_flatness_equals_the_divergence_written_out() -> None:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=draws)
    other = torch.randn(2, 4, generator=draws)
    settings = "recover.flatness={decay: 0.9, temperature: 4}"
    config = tiny_recover("recover.terms={flatness: 1.0}", settings)
    seen = forward(pixels, [0, 1], config, smoothed_logits=other)
    here = (seen.teacher.logits / 4).softmax(1)
    there = (other / 4).softmax(1)
    expected = (here * (here / there).log()).sum(1).mean()
    assert flatness(seen).item() == pytest.approx(expected.item(), rel=1e-5)


def test_density_is_zero_for_single_images_and_prefers_different_ones() -> None:
    noise = torch.randn(4, 3, SIDE, SIDE)
    alike = noise[:1].expand(4, -1, -1, -1) * torch.tensor([1.0, 1.1, 0.9, 1.05]).view(4, 1, 1, 1)
    assert density(forward(noise, [0, 1, 2, 3])).item() == 0.0
    assert density(forward(noise, [0] * 4)).item() < density(forward(alike, [0] * 4)).item()


def test_start_distance_is_the_mean_square() -> None:
    pixels = torch.zeros(2, 3, SIDE, SIDE)
    assert start_distance(forward(pixels, [0, 1], start=pixels + 2)).item() == pytest.approx(4.0)


def weights(teacher: FrozenTeacher) -> torch.Tensor:
    return torch.cat([value.flatten() for value in teacher.parameters()])


def test_a_perturbed_teacher_has_the_configured_distance_and_the_original_is_unchanged() -> None:
    config = tiny_recover("recover.perturb={steps: 3, radius: 0.05}").perturb
    assert config is not None
    teacher, pixels, targets = tiny_teacher(), torch.randn(4, 3, SIDE, SIDE), torch.arange(4)
    before = weights(teacher).clone()
    moved = perturbed(teacher, pixels, targets, config)
    assert torch.equal(weights(teacher), before)
    assert not any(p.requires_grad for p in (*moved.parameters(), *teacher.parameters()))
    length = (weights(moved) - before).norm().item()
    assert 0.04 < length <= 0.05 + 1e-6  # three moves, nearly in one direction

    def loss(network: FrozenTeacher) -> float:
        return torch.nn.functional.cross_entropy(network(pixels).logits, targets).item()

    assert loss(moved) > loss(teacher)


def test_a_batch_under_a_perturbed_teacher_is_independent_of_the_batch_before() -> None:
    teacher, move = tiny_teacher(), "recover.perturb={steps: 3, radius: 0.5}"
    first = recover(move, teachers=[teacher])
    recover(move, teachers=[teacher], batch=tiny_batch(1))
    again = recover(move, teachers=[teacher])
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, recover(teachers=[teacher]).pixels)


def test_resizing_to_the_same_side_changes_nothing() -> None:
    images = torch.randn(1, 3, SIDE, SIDE)
    assert resized(images, SIDE) is images
    assert resized(images, 8).shape == (1, 3, 8, 8)


def test_teachers_alternate_from_step_to_step() -> None:
    one, other = tiny_teacher(), tiny_teacher(seed=1)
    both = recover(*STILL, teachers=[one, other], start=real())
    first = recover(*STILL, teachers=[one], start=real())
    second = recover(*STILL, teachers=[other], start=real())
    assert both.trace[0] == first.trace[0]
    assert both.trace[1] != first.trace[1]
    assert both.trace[1] != second.trace[1]  # the first step was the other teacher's
    assert np.array_equal(first.pixels, recover(*STILL, teachers=[one, one], start=real()).pixels)


def test_the_adversarial_term_equals_a_value_computed_by_hand() -> None:
    # Softmax of (log 3, 0, 0): the assigned class has 3/5, so -log(2/5).
    said = TeacherOutput(torch.zeros(1, 1), torch.tensor([[9.0, 0.0, 0.0]]), ())
    student = torch.tensor([[np.log(3.0), 0.0, 0.0]])
    looked = Forward(
        torch.zeros(1, 3, 2, 2), torch.tensor([0]), said, PLAIN, student_logits=student
    )
    assert adversarial(looked).item() == pytest.approx(-np.log(2 / 5))


def test_rows_that_the_teacher_gets_wrong_get_no_gradient_from_the_student() -> None:
    pixels = torch.randn(4, 3, SIDE, SIDE, requires_grad=True)
    said = tiny_teacher()(pixels)
    right = said.logits.argmax(dim=1)
    targets = torch.stack([right[0], (right[1] + 1) % 4, right[2], (right[3] + 1) % 4])
    student = tiny_teacher(seed=1)(pixels).logits
    looked = Forward(pixels, targets, said, PLAIN, student_logits=student)
    value = adversarial(looked)
    (gradient,) = torch.autograd.grad(value, pixels)
    assert [bool(row) for row in gradient.flatten(1).norm(dim=1) > 0] == [True, False, True, False]
    # The teacher is asked whether it is right, and nothing else: its logits get no gradient.
    others = Forward(pixels, targets, said, PLAIN, student_logits=torch.zeros(4, 4))
    assert adversarial(others).item() == pytest.approx(-np.log(1 - 1 / 4))
    assert not adversarial(others).requires_grad


def test_a_very_confident_student_still_gives_a_gradient() -> None:
    said = TeacherOutput(torch.zeros(1, 1), torch.tensor([[9.0, 0.0]]), ())
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    looked = Forward(torch.zeros(1, 3, 2, 2), torch.tensor([0]), said, PLAIN, student_logits=logits)
    value = adversarial(looked)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(60.0)
    assert gradient.tolist() == [[1.0, -1.0]]


def test_the_adversarial_term_changes_images_with_a_student_and_is_left_out_without() -> None:
    both = {"cross_entropy": 1.0, "adversarial": 1.0}
    config = tiny_recover().model_copy(update={"terms": both})
    alone, asked = recover(config=config), recover(config=config, student=tiny_teacher(seed=1))
    plain = recover("recover.terms={cross_entropy: 1.0}")
    assert np.array_equal(alone.pixels, plain.pixels)
    assert "adversarial" not in alone.trace[-1]
    assert not np.array_equal(asked.pixels, plain.pixels)
    assert asked.trace[-1]["total"] == pytest.approx(
        asked.trace[-1]["cross_entropy"] + asked.trace[-1]["adversarial"], rel=1e-5
    )
