"""States inside an epoch: the rest of a training is that of an undisturbed one, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distill_core.errors import DivergedError
from distill_core.squeeze.result import SqueezedTeacher
from distill_core.squeeze.teacher import train_teacher
from distill_core.training.distributed import DistributedContext
from distill_core.training.intervals import SaveInterval, SaveTimer
from distill_core.training.random_streams import RandomStreams
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import StreamedSplit
from tests.support.killed import Killed, MemoryCheckpoints
from tests.support.teacher_training import TEST, TRAIN, run

EVERY_STEP = SaveInterval(steps=1)
DROPOUT: dict[str, Any] = {"model": "mobilenet_v3_small", "training": {"epochs": 1}}


def train(
    checkpoints: MemoryCheckpoints | None = None,
    *,
    streamed: bool = False,
    interval: SaveInterval = EVERY_STEP,
    **config: Any,
) -> SqueezedTeacher:
    images = StreamedSplit(lambda rows: TRAIN.pixels[rows], TRAIN.labels) if streamed else TRAIN
    runtime = TrainingRuntime(checkpoints=checkpoints, interval=interval)
    return train_teacher(images, TEST, run=run(**config), class_hash="ab", runtime=runtime)


def interrupted(place: tuple[int, int], **settings: Any) -> MemoryCheckpoints:
    """Return the checkpoints of a training that is killed after some epochs and batches."""
    checkpoints = MemoryCheckpoints(dies_after=place)
    with pytest.raises(Killed):
        train(checkpoints, **settings)
    checkpoints.dies_after = None
    torch.manual_seed(123)
    return checkpoints


@pytest.fixture(scope="module")
def undisturbed() -> SqueezedTeacher:
    """Return the teacher of a training that nothing interrupts."""
    return train()


@pytest.mark.parametrize(
    ("place", "streamed"), [((0, 1), True), ((1, 2), False), ((2, 1), True), ((2, 2), False)]
)
def test_a_training_killed_inside_an_epoch_gives_the_same_bytes(
    undisturbed: SqueezedTeacher, place: tuple[int, int], streamed: bool
) -> None:
    checkpoints = interrupted(place, streamed=streamed)
    assert max({*checkpoints.inside, *((epoch, 0) for epoch in checkpoints.kept)}) == place
    steps: list[tuple[int, int]] = []
    runtime = TrainingRuntime(
        checkpoints=checkpoints, progress=lambda done, total: steps.append((done, total))
    )
    resumed = train_teacher(TRAIN, TEST, run=run(), class_hash="ab", runtime=runtime)
    assert resumed == undisturbed
    # Three batches in each of three epochs.
    assert steps == [(step, 9) for step in range(3 * place[0] + place[1] + 1, 10)]


@pytest.mark.parametrize("processes", [1, 2])
def test_dropout_goes_on_where_it_stopped(processes: int) -> None:
    settings = DROPOUT | {"training": DROPOUT["training"] | {"processes": processes}}
    assert train(interrupted((0, 2), **settings), **settings) == train(**settings)


def test_the_random_states_in_a_checkpoint_decide_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = interrupted((0, 2), **DROPOUT)
    monkeypatch.setattr(RandomStreams, "restore", lambda *_: False)
    assert train(checkpoints, **DROPOUT) != train(**DROPOUT)


def test_checkpoints_of_whole_epochs_are_as_they_were() -> None:
    plain, often = MemoryCheckpoints(), MemoryCheckpoints()
    train(plain, interval=SaveInterval())
    train(often)
    assert plain.inside == {}
    assert plain.kept == often.kept
    assert list(often.inside) == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]


def test_an_interval_of_steps_counts_from_the_last_saved_state() -> None:
    checkpoints = MemoryCheckpoints()
    train(checkpoints, interval=SaveInterval(steps=2))
    assert list(checkpoints.inside) == [(0, 2), (1, 2), (2, 2)]


def test_a_training_that_diverges_stops_at_its_next_checkpoint() -> None:
    optimizer = {"name": "sgd", "lr": 1e30, "weight_decay": 0.0}
    training = {"optimizer": optimizer, "schedule": {}, "nesterov": False}
    checkpoints = MemoryCheckpoints()
    with pytest.raises(DivergedError, match="mean loss of epoch 1 is nan"):
        train(checkpoints, training=training)
    assert list(checkpoints.inside) == [(0, 1)]


@pytest.mark.parametrize(("seconds", "saved"), [(4.0, [4, 8, 12, 16]), (1.0, list(range(1, 17)))])
def test_an_interval_in_seconds_becomes_steps(seconds: float, saved: list[int]) -> None:
    now = [0.0]
    timer = SaveTimer(SaveInterval(seconds=seconds), DistributedContext(), lambda: now[0])
    due = []
    for step in range(1, 17):
        now[0] += 1.0
        if timer.is_due():
            due.append(step)
            timer.restart()
    assert due == saved
