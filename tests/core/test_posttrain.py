from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from distill_core.errors import DivergedError
from distill_core.label_source import OnlineLabels
from distill_core.posttrain import StudentTask, train_student
from distill_core.supervised import Labelled
from tests.core.tiny import tiny_batch, tiny_run, tiny_teacher
from tests.golden.numbers import labelled, pixels

IMAGES = tiny_batch(0) + tiny_batch(1) + tiny_batch(2)
SETTINGS = (
    "posttrain.epochs=6",
    "posttrain.batch_size=5",
    "posttrain.evaluate_every=2",
    "relabel.views=4",
)


class Memory:
    """Checkpoints in a list; may end the training as a crash would."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.kept: tuple[int, bytes] | None = None
        self.crash_at = crash_at

    def save(self, step: int, payload: bytes) -> None:
        self.kept = (step, payload)
        if step == self.crash_at:
            raise KeyboardInterrupt

    def latest(self) -> tuple[int, bytes] | None:
        return self.kept


def train(
    *overrides: str, images_of: str = "distilled", **changes: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    run = tiny_run(*SETTINGS, *overrides)
    data = Labelled(pixels(len(IMAGES)), np.array([image.label for image in IMAGES]))
    shards = [(IMAGES, torch.from_numpy(data.pixels))]
    labels = OnlineLabels(shards, tiny_teacher(), run.relabel, run.seed)
    task = StudentTask(run, run.posttrain.students[0], changes.pop("seed", 0), images_of)  # type: ignore[arg-type]
    result, student = train_student(
        task, data, labels, labelled(24, seed=1), device="cpu", **changes
    )
    return result, student.state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_last_ema_and_best_are_reported_and_named() -> None:
    result, _ = train()
    assert [point["epoch"] for point in result["curve"]] == [2, 4, 6]
    assert result["last"]["top1"] == result["curve"][-1]["top1"]
    assert result["ema"]["top1"] == result["curve"][-1]["ema_top1"]
    assert result["best"]["top1"] == max(point["top1"] for point in result["curve"])
    assert result["steps"] == 6 * 3
    assert result["images"] == 12


def test_a_resumed_training_ends_with_the_weights_of_an_undisturbed_one() -> None:
    undisturbed, weights = train()
    memory = Memory(crash_at=4)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoints=memory)
    memory.crash_at = None
    resumed, again = train(checkpoints=memory)
    assert equal(weights, again)
    assert resumed == undisturbed


def test_seeds_give_different_students_and_the_same_seed_the_same() -> None:
    (_, first), (_, same), (_, other) = train(), train(), train(seed=1)
    assert equal(first, same)
    assert not equal(first, other)


def test_hard_labels_never_ask_the_teacher() -> None:
    _, soft = train()
    _, hard = train(images_of="hard_labels")
    assert not equal(soft, hard)


@pytest.mark.parametrize("optimizer", ["{name: sgd, lr: 0.01}", "{name: adam, lr: 0.01}"])
def test_every_optimizer_and_schedule_trains(optimizer: str) -> None:
    result, _ = train(
        f"posttrain.optimizer={optimizer}",
        "posttrain.schedule={zeta: 2, warmup_epochs: 1, per_step: true}",
        "posttrain.temperature_squared=true",
    )
    assert np.isfinite([point["loss"] for point in result["curve"]]).all()


def test_micro_batches_take_the_same_number_of_steps() -> None:
    whole, _ = train()
    parts, _ = train("posttrain.micro_batch=2")
    assert parts["steps"] == whole["steps"]
    assert parts["curve"][0]["loss"] == pytest.approx(whole["curve"][0]["loss"], rel=0.5)


def test_a_diverging_student_is_said_to_diverge() -> None:
    with pytest.raises(DivergedError, match="posttrain"):
        train("posttrain.optimizer={name: sgd, lr: 1.0e30}")
