"""The flags of torch are the same wherever a result is computed, and results record the rest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from distill_core.config.load import load_run
from distill_core.environment import LIBRARIES, made_with, mixed, set_backend_flags
from tasks.calibration import CalibrationWorker
from tasks.jobs import Job
from tasks.stages.worker import WorkerContext
from tests.support.threads import one_thread

__all__ = ["one_thread"]


def flags() -> tuple[bool, ...]:
    """Return the flags of torch that decide rounding."""
    cudnn = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul.allow_tf32
    return (matmul, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)


def set_flags(values: tuple[bool, ...]) -> None:
    """Set the flags."""
    cudnn = torch.backends.cudnn
    torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32 = values[:2]
    cudnn.benchmark, cudnn.deterministic = values[2:]


@pytest.fixture(autouse=True)
def other_flags() -> Iterator[None]:
    """Begin with flags that somebody else has set, and restore those from before."""
    before = flags()
    set_flags((True, True, True, True))
    yield
    set_flags(before)


def test_float32_is_float32_and_algorithms_are_chosen_by_rules() -> None:
    with warnings.catch_warnings(action="error"):  # torch warns if its two ways are mixed
        set_backend_flags()
        assert flags() == (False, False, False, False)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"  # torch's newer name of the flag


def test_every_worker_sets_the_flags(tmp_path: Path) -> None:
    run = load_run("digits-demo").model_dump_json()
    WorkerContext("recover", run=run, name="any", store=str(tmp_path), device="cpu")
    assert flags() == (False, False, False, False)


def test_the_worker_that_measures_rates_sets_the_flags() -> None:
    changes = ("squeeze.model.width=2", "relabel.views=1", "recover.steps=0", "data.side=8")
    run = load_run("digits-demo", changes).model_dump_json()
    CalibrationWorker(run=run, device="cpu").run(Job("key", "shard", None))
    assert flags() == (False, False, False, False)


def test_a_result_records_versions_and_the_instructions_of_the_processor() -> None:
    facts = made_with("cpu")
    assert {name: facts[name] for name in LIBRARIES} == {name: version(name) for name in LIBRARIES}
    assert facts["cpu"] == torch.backends.cpu.get_cpu_capability()
    assert "gpu" not in facts
    assert all(value.isascii() and len(value) <= 60 for value in facts.values())


def test_environments_differ_in_what_one_of_them_lacks_and_old_shards_differ_in_nothing() -> None:
    one, other = {"torch": "2.14", "cpu": "AVX2"}, {"torch": "2.15", "cpu": "AVX2", "gpu": "H200"}
    assert mixed([one, one, {}]) == {}
    assert mixed([one, {}, other]) == {"gpu": ("H200", "none"), "torch": ("2.14", "2.15")}
