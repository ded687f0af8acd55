"""Recorded and replayed steps give the same bytes as eager steps.

The recorder of these tests works as a GPU does: nothing runs before the replay. A real one
needs a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.recover import cudagraph
from distill_core.recover.cudagraph import WARM_UP, RecordedSteps, Replay, Step
from distill_core.recover.optimise import recover_together
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.step import Part, recover_step
from distill_core.recover.terms import NEEDS_SYNC, TERMS
from tests.support.recovered_batches import AXES, BATCHES, together
from tests.support.term_bench import batch, config_of, expected, noise, student_of, teacher_of
from tests.support.tiny import tiny_teacher


def one_by_one(device: torch.device) -> Step:
    """Take steps with lenses of fixed shapes, as recordings have them."""
    return lambda parts: recover_step([replace(p, grid=p.grid.whole()) for p in parts])


class Again:
    """Hands a step back, and counts."""

    def __init__(self) -> None:
        self.recorded, self.replayed = 0, 0

    def rehearse(self, step: Replay) -> torch.Tensor:
        return step()

    def record(self, step: Replay) -> Replay:
        self.recorded += 1

        def again() -> torch.Tensor:
            self.replayed += 1
            return step()

        return again


@pytest.mark.parametrize("axis", AXES)
def test_replayed_steps_give_the_same_bytes_as_eager_steps(axis: str) -> None:
    recorder = Again()
    replayed = together(BATCHES, *AXES[axis], steps_on=lambda _: RecordedSteps(recorder))
    plain = together(BATCHES, *AXES[axis], steps_on=one_by_one)
    for one, other in zip(plain, replayed, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.trace == other.trace
    assert recorder.replayed > recorder.recorded > 0


def test_each_kind_of_step_is_recorded_once_after_a_few_eager_ones() -> None:
    recorder, late = Again(), ("recover.late_groups=2", "recover.ipc_range=2")
    together(BATCHES, *late, "recover.steps=20", steps_on=lambda _: RecordedSteps(recorder))
    assert recorder.recorded == 1  # of one image per class, none joins late
    assert recorder.replayed == 20 - WARM_UP


def test_a_failed_recording_is_reported_and_steps_continue_eagerly(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Large:
        """The memory of a failed recording."""

    held: list[weakref.ref[Large]] = []

    class Refuses(Again):
        def record(self, step: Replay) -> Replay:
            held.append(weakref.ref(large := Large()))
            raise torch.OutOfMemoryError(f"CUDA out of memory: {type(large).__name__}.")

    def released(parts: Sequence[Part]) -> torch.Tensor:
        assert all(one() is None for one in held), "the failure still holds its memory"
        return recover_step(parts)

    monkeypatch.setattr(cudagraph, "recover_step", released)
    replayed = together(BATCHES, steps_on=lambda _: RecordedSteps(Refuses()))
    assert len(held) == 1
    for one, other in zip(together(BATCHES, steps_on=one_by_one), replayed, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
    assert [record.message for record in caplog.records] == [
        "recover: steps are not recorded (CUDA out of memory: Large.)."
    ]


@pytest.mark.parametrize("term", sorted(TERMS))
def test_every_term_gives_the_same_bytes_when_it_is_replayed(term: str) -> None:
    recorder, config = Again(), config_of(term)
    config = config.model_copy(update={"steps": 10})
    drawn = config.convolutions is not None and config.convolutions.drop_rate > 0

    def made(steps_on: Callable[[torch.device], Step]) -> np.ndarray:
        (one,) = recover_together(
            [batch()],
            RecoverySetup(config, [teacher_of()], seed=0, student=student_of()),
            starts=[noise(5, 2) if config.reads_real_images else None],
            real=[[expected(batch(), config)]],
            steps_on=steps_on,
        )
        return one.pixels

    assert np.array_equal(made(lambda _: RecordedSteps(recorder)), made(one_by_one))
    if drawn:  # a step that leaves layers out is like no other
        assert recorder.recorded <= 1
    else:
        assert recorder.recorded == (term not in NEEDS_SYNC)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_give_the_same_numbers_as_eager_steps() -> None:
    how: Any = {"teachers": [tiny_teacher().to("cuda")]}
    by_graph = together(BATCHES, **how)
    for one, other in zip(together(BATCHES, steps_on=one_by_one, **how), by_graph, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
