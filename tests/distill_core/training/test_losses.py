from __future__ import annotations

import math

import pytest
import torch

from distill_core.config.students import TemperatureConfig
from distill_core.training.losses import kl_soft_labels, mixed_cross_entropy, temperature_at


def test_kl_equals_a_value_computed_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    # At T = 2 the teacher says (3/4, 1/4), the student (1/2, 1/2).
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    loss = kl_soft_labels(student, teacher, temperature=2.0, squared=False)
    assert loss.item() == pytest.approx(by_hand)
    squared = kl_soft_labels(student, teacher, temperature=2.0, squared=True)
    assert squared.item() == pytest.approx(4 * by_hand)


def test_logit_smoothing_only_scales_raw_logits() -> None:
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    smoothed = kl_soft_labels(student, teacher, temperature=1.0, squared=False, smoothing=0.2)
    scaled = kl_soft_labels(student, 0.8 * teacher, temperature=1.0, squared=False)
    torch.testing.assert_close(smoothed, scaled)


def test_a_student_may_have_a_temperature_of_its_own() -> None:
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    loss = kl_soft_labels(
        student, teacher, temperature=20.0, squared=False, student_temperature=1.0
    )
    soft, said = (teacher / 20).softmax(1), student.log_softmax(1)
    torch.testing.assert_close(loss, (soft * (soft.log() - said)).sum(1).mean())


def test_the_temperature_falls_by_steps_to_its_floor() -> None:
    decay = TemperatureConfig(factor=0.5, every=10, floor=3.0)
    epochs = (0, 9, 10, 20, 30, 1000)
    found = [temperature_at(20.0, decay, epoch, epochs=1001) for epoch in epochs]
    assert found == [20.0, 20.0, 10.0, 5.0, 3.0, 3.0]
    assert temperature_at(20.0, None, 1000, epochs=1001) == 20.0


def test_without_steps_the_temperature_falls_along_half_a_cosine() -> None:
    decay = TemperatureConfig(floor=2.0)
    found = [temperature_at(20.0, decay, epoch, epochs=300) for epoch in (0, 100, 150, 200)]
    assert found == pytest.approx([20.0, 15.5, 11.0, 6.5])
    with pytest.raises(ValueError, match="set both factor and every"):
        TemperatureConfig(floor=2.0, every=30)


def test_mixed_cross_entropy_weighs_both_classes() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0]])
    own, other = (mixed(logits, label, label, 1.0) for label in (0, 1))
    assert mixed(logits, 0, 1, 0.25) == pytest.approx(0.25 * own + 0.75 * other)


def mixed(logits: torch.Tensor, label: int, partner: int, share: float) -> float:
    labels, partners = torch.tensor([label]), torch.tensor([partner])
    return mixed_cross_entropy(logits, labels, partners, torch.tensor([share])).item()
