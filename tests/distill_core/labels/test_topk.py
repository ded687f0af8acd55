"""Top-k labels: the logits they keep, the value of the others, and the information they lose."""

from __future__ import annotations

import pytest
import torch

from benchmarks.information import share_lost
from distill_core.errors import ConfigError
from distill_core.labels.topk import keep_top, restore
from distill_core.training.losses import kl_soft_labels
from tests.support.realistic_labels import CLASSES, labels
from tests.support.tiny import tiny_run

LOGITS = torch.randn(7, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_kept_logits_keep_their_classes_and_the_others_get_their_mean() -> None:
    top = keep_top(LOGITS, 5)
    back = restore(top, classes=12, rest="mean")
    kept = torch.zeros_like(LOGITS, dtype=torch.bool).scatter(1, top.ids, True)
    assert torch.equal(back[kept], LOGITS[kept])
    for row in range(7):
        left = LOGITS[row, ~kept[row]]
        torch.testing.assert_close(back[row, ~kept[row]], left.mean().expand(7))


def test_without_a_rest_the_softmax_is_over_the_kept_logits_at_any_temperature() -> None:
    top = keep_top(LOGITS, 5)
    for temperature in (1.0, 20.0):
        said = (restore(top, classes=12, rest="none") / temperature).softmax(1)
        assert torch.equal((said > 0).sum(1), torch.full((7,), 5))
        expected = (top.values / temperature).softmax(1)
        torch.testing.assert_close(said.gather(1, top.ids), expected)


def test_keeping_every_class_gives_the_logits_themselves() -> None:
    assert torch.equal(restore(keep_top(LOGITS, 12), classes=12, rest="none"), LOGITS)


def test_the_first_logits_of_a_larger_k_equal_those_of_a_smaller_k() -> None:
    larger, smaller = keep_top(LOGITS, 8), keep_top(LOGITS, 3)
    assert torch.equal(larger.values[:, :3], smaller.values)
    assert torch.equal(larger.ids[:, :3], smaller.ids)


def test_students_learn_from_labels_without_a_rest() -> None:
    student = torch.randn(7, 12, dtype=torch.float64, requires_grad=True)
    teacher = restore(keep_top(LOGITS, 5), classes=12, rest="none")
    loss = kl_soft_labels(student, teacher, temperature=20, squared=False, student_temperature=1.0)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(("k", "least", "most"), [(10, 0.5, 0.99), (100, 0.3, 0.6)])
def test_topk_loses_more_information_than_the_feature_codec(
    k: int, least: float, most: float
) -> None:
    """At T = 20 and 1,000 classes; features of 4 bits lose at most 0.005."""
    exact = labels()[0]
    back = restore(keep_top(torch.from_numpy(exact), k), classes=CLASSES, rest="mean")
    assert least < share_lost(exact, back.numpy(), 20.0) < most


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["relabel.scheme=topk"], "topk is required with scheme=topk"),
        (["relabel.topk=3"], "topk is required with scheme=topk"),
        (["relabel.scheme=topk", "relabel.topk=5"], "at most 4, the number of classes"),
        (["relabel.scheme=topk", "relabel.topk=2", "posttrain.loss=mse"], "set posttrain.rest"),
    ],
)
def test_contradictory_settings_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_run(*overrides)
