"""The memory that workers declare is a setting, or the estimate of their stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill_core.config.load import load_run
from distill_core.storage.store import Store
from flows.estimate.memory.stages import stage_memories
from flows.estimate.memory.worker import worker_memory
from flows.runs import work
from flows.runs.work import Work
from tasks.execution import Execution, Placement
from tasks.jobs import WorkerMemory
from tasks.pools.provider import PoolProvider
from tasks.run import planned_run
from tasks.runs.worker_spec import worker_spec
from tasks.stages.names import StageId
from tasks.stages.table import stages_of
from tests.support.notes import Notes

CONFIG = load_run("sre2l-tiny")
ESTIMATES = {memory.stage: memory for memory in stage_memories(CONFIG)}


def execution(**settings: Any) -> Execution:
    return Execution(store="store", **settings)


def test_every_stage_that_is_estimated_declares_its_estimate() -> None:
    assert {"recover", "relabel"} <= ESTIMATES.keys()
    for stage in stages_of(CONFIG):
        declared = worker_memory(CONFIG, stage, execution())
        estimate = ESTIMATES.get(stage.kind)
        if estimate is None:
            assert declared is None
        else:
            assert declared == WorkerMemory(estimate.own.needed, estimate.own.least)
    student = ESTIMATES["posttrain"]
    assert student.needed - student.own.needed == 10_000 * 3 * 64**2  # held once per node


def test_a_worker_on_a_gpu_declares_what_its_node_holds() -> None:
    on_gpu = worker_memory(CONFIG, StageId("recover", 1), execution(device="cuda"))
    assert on_gpu is not None
    assert 0 < on_gpu.needed < ESTIMATES["recover"].needed
    assert on_gpu.least == 0


def test_a_setting_takes_the_place_of_the_estimate_and_zero_declares_nothing() -> None:
    stated = WorkerMemory(2.5e9, 2.5e9)
    for kind in ("ingest", "recover"):
        assert worker_memory(CONFIG, StageId(kind), execution(memory_gb=2.5)) == stated
        assert worker_memory(CONFIG, StageId(kind), execution(memory_gb=0)) is None


def test_the_worker_of_each_stage_that_is_run_has_its_own_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned_run(CONFIG, Store(str(tmp_path)))
    declared: dict[str, WorkerMemory | None] = {}

    class Status:
        def nothing_to_do(self, allowed: int) -> bool:
            return True

    def run_stage(run: Any, stage: StageId, *, execution: Execution, **_: object) -> Status:
        declared[stage.kind] = worker_spec(run, stage, execution).memory
        return Status()

    monkeypatch.setattr(work, "run_stage", run_stage)
    how = execution()
    passes = Work(run, execution=how, observer=Notes(), pools=PoolProvider(how), selection={})
    for stage in stages_of(CONFIG):
        passes.run_stage(stage)
    assert declared == {
        stage.kind: worker_memory(CONFIG, stage, how) for stage in stages_of(CONFIG)
    }


def test_what_is_computed_for_a_stage_is_no_setting() -> None:
    """A flow is started with the settings, and computes it itself."""
    one = execution(memory_gb=1).model_copy(update={"worker_memory": WorkerMemory(1.0, 1.0)})
    dumped = one.model_dump(mode="json", exclude={"store"})
    assert Placement.model_validate(dumped).memory_gb == 1
    assert "worker_memory" not in dumped
