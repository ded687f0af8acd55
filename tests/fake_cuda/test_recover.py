"""Recover on a GPU that computes no values: devices, types and waits of every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_core.config.fields import Precision
from distill_core.config.recovery import RecoverConfig
from distill_core.errors import ConfigError
from distill_core.recover import cudagraph, optimise
from distill_core.recover.cudagraph import RecordedSteps
from distill_core.recover.optimise import recover_together
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.step import Part
from distill_core.recover.terms import NEEDS_SYNC, TERMS
from distill_core.sharding import Batch
from distill_core.storage.statistics_files import Expected
from tests.support.fake_cuda import EVERY_STEP, FakeCuda, fake_cuda
from tests.support.term_bench import (
    batch,
    config_of,
    expected,
    noise,
    student_of,
    teacher_of,
)
from tests.support.tiny import STD, tiny_batch, tiny_recover, tiny_run, tiny_teacher

STEPS = 3  # the first is taken, the second recorded, the third replayed
THREE = "squeeze.pool=[{model: {name: convnet3}}, {model: {name: convnet3}}]"
TEACH = "recover.teachers=[0, 1, 2]"
COMMITTEES: dict[str, tuple[str, ...]] = {
    "in turn": (TEACH, "recover.teacher_terms=[{}, {bn_statistics: 0.2}, {}]"),
    "by weight": (
        TEACH,
        "recover.committee={voters: 2, weighting: {priors: [3, 2, 1], temperature: 1}}",
    ),
}
OPTIONS: dict[str, tuple[str, ...]] = {
    "late groups and averages": (
        "recover.shared_view=false",
        "recover.late_groups=2",
        "recover.ipc_range=2",
        "recover.statistics_decay=0.4",
        "recover.init=real",
        "recover.terms={cross_entropy: 1.0, bn_statistics: 0.1, flatness: 1, start_distance: 1}",
        "recover.flatness={decay: 0.9, temperature: 4.0}",
    ),
    "segments of pixels in [0, 1]": (
        "recover.segments=[{steps: 3, side: 12}, {steps: 3}]",
        "recover.steps=6",
        "recover.residual=0.5",
        "recover.space=pixel",
        "recover.start_std=0.1",
    ),
    "perturbed teachers without crops": (
        "recover.perturb={steps: 2, radius: 0.1}",
        "recover.crop=null",
        "recover.flip=false",
        "recover.roll={mode: symmetric, pixels: 2}",
    ),
}
BOTH = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


def together() -> list[tuple[str, ...]]:
    """Return all terms, in as few sets as configs allow; those that wait stand alone."""
    sets: list[tuple[str, ...]] = []
    for term in TERMS:
        for number, others in enumerate(sets):
            if not NEEDS_SYNC & {term, *others} and _allowed(*others, term):
                sets[number] = (*others, term)
                break
        else:
            sets.append((term,))
    return sets


def _allowed(*terms: str) -> bool:
    try:
        _config(*terms)
    except (ConfigError, ValueError):
        return False
    return True


def _config(*terms: str) -> RecoverConfig:
    """Return a config of these terms in which no step leaves a layer out."""
    config = config_of(*terms)
    if config.convolutions is not None:
        drawn = config.convolutions.model_copy(update={"drop_rate": 0.0})
        config = config.model_copy(update={"convolutions": drawn})
    return config.model_copy(update={"steps": STEPS})


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudagraph, "WARM_UP", 1)


class Checked:
    """Takes steps, and looks at what they leave on the GPU."""

    def __init__(self, gpu: FakeCuda) -> None:
        self.taken, self.replayed = 0, 0
        self._steps = RecordedSteps(gpu)

    def __call__(self, parts: Sequence[Part]) -> Tensor:
        values = self._steps(parts)
        self.taken += 1
        self.replayed += bool(self._steps._recordings)
        leaves = [leaf for part in parts for leaf in part.images]
        assert values.shape == (len(parts), len(parts[0].goal.objective) + 1)
        for tensor in (values, *leaves, *(leaf.grad for leaf in leaves)):
            assert tensor is not None
            assert (tensor.device.type, tensor.dtype) == ("cuda", torch.float32)
        return values


def recovered(
    config: RecoverConfig,
    precision: Precision,
    *,
    batches: Sequence[Batch],
    real: Sequence[Sequence[Expected]] = (),
    teachers: int = 1,
) -> tuple[FakeCuda, Checked]:
    """Recover batches on the fake GPU; return it, and the steps that were taken."""
    starts = [noise(len(one), 2) if config.reads_real_images else None for one in batches]
    with fake_cuda() as gpu:
        # Of another normalisation than the first, so that images are converted for it.
        others = [
            tiny_teacher(precision, seed=n, mean=(0.1, 0.2, 0.3), std=STD).to("cuda")
            for n in range(1, teachers)
        ]
        networks = [teacher_of(precision).to("cuda"), *others]
        setup = RecoverySetup(config, networks, seed=0, student=student_of(precision).to("cuda"))
        steps = Checked(gpu)
        made = recover_together(batches, setup, starts=starts, real=real, steps_on=lambda _: steps)
    assert [one.pixels.shape[0] for one in made] == [len(one) for one in batches]
    assert steps.taken == config.steps
    return gpu, steps


def test_the_sets_contain_every_term_and_few_steps_wait() -> None:
    sets = together()
    assert sorted(term for terms in sets for term in terms) == sorted(TERMS)
    assert {term for terms in sets if len(terms) > 1 for term in terms} & NEEDS_SYNC == set()
    assert max(map(len, sets)) > len(TERMS) / 2


@BOTH
@pytest.mark.parametrize("terms", together(), ids=" ".join)
def test_every_term_computes_on_the_gpu_and_is_recorded_without_a_wait(
    terms: tuple[str, ...], precision: Precision
) -> None:
    config = _config(*terms)
    real = [[expected(batch(), config)]]
    gpu, steps = recovered(config, precision, batches=[batch()], real=real)
    assert (steps.replayed > 0) == (not NEEDS_SYNC & set(terms))
    assert (EVERY_STEP.keys() & set(gpu.waits) != set()) == bool(NEEDS_SYNC & set(terms))


@BOTH
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_computes_on_the_gpu(option: str, precision: Precision) -> None:
    config = tiny_recover("recover.steps=3", *OPTIONS[option])
    batches = [tiny_batch(0) + tiny_batch(1), tiny_batch(0, classes=3) + tiny_batch(1, classes=2)]
    _, steps = recovered(config, precision, batches=batches)
    assert steps.replayed > 0


@pytest.mark.parametrize(
    ("committee", "precision"),
    [("in turn", "float32"), ("by weight", "float32"), ("by weight", "bfloat16")],
)
def test_several_teachers_compute_on_the_gpu(committee: str, precision: Precision) -> None:
    turns = 3 if committee == "in turn" else 1
    config = tiny_run(THREE, f"recover.steps={turns * STEPS}", *COMMITTEES[committee]).recover
    batches = [tiny_batch(0), tiny_batch(0, classes=3)]
    _, steps = recovered(config, precision, batches=batches, teachers=3)
    assert steps.replayed > 0


def test_a_step_that_leaves_layers_out_does_not_wait() -> None:
    config = config_of("conv_statistics").model_copy(update={"steps": 2})
    recovered(config, "float32", batches=[batch()], real=[[expected(batch(), config)]])


def test_the_number_of_waits_does_not_depend_on_the_number_of_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(optimise, "is_traced", lambda step, steps: step == steps - 1)
    monkeypatch.setattr(optimise, "snapshot_steps", lambda steps: frozenset({0, steps}))
    config = tiny_recover(*OPTIONS["late groups and averages"])

    def waits(steps: int) -> list[Any]:
        changed = config.model_copy(update={"steps": steps})
        return sorted(recovered(changed, "float32", batches=[tiny_batch()])[0].waits)

    assert waits(3) == waits(6)
