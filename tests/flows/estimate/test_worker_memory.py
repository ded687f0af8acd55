"""The memory that workers declare is a setting, or the estimate of their stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_core.config.load import load_run
from distill_core.storage.store import Store
from flows.estimate.memory.real_data import ImageCounts
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
from tasks.stages.plan import JobPlan
from tasks.stages.table import stages_of
from tests.support.fabricate import finished_run
from tests.support.notes import Notes

CONFIG = load_run("sre2l-tiny")
UNKNOWN = (None, None, None)
ESTIMATES = {memory.stage: memory for memory in stage_memories(CONFIG)}


def execution(**settings: Any) -> Execution:
    return Execution(store="store", **settings)


def test_every_stage_that_is_estimated_declares_its_estimate() -> None:
    assert {"recover", "relabel"} <= ESTIMATES.keys()
    for stage in stages_of(CONFIG):
        declared = worker_memory(CONFIG, stage, execution(), UNKNOWN)
        estimate = ESTIMATES.get(stage.kind)
        if estimate is None:
            assert declared is None
        else:
            assert declared == WorkerMemory(estimate.own.needed, estimate.own.least)
    student = ESTIMATES["posttrain"]
    assert student.needed - student.own.needed == 10_000 * 3 * 64**2  # held once per node


@pytest.mark.parametrize("preset", ["cudd-tiny", "lpld-tiny", "herding-tiny", "random-real-tiny"])
def test_every_worker_declares_its_memory_once_the_images_are_counted(preset: str) -> None:
    config = load_run(preset)
    counts = (100_000, 25_000, 500)
    declared = {
        stage.kind: worker_memory(config, stage, execution(), counts) for stage in stages_of(config)
    }
    idle = set() if config.recover.needs_class_statistics else {"statistics"}
    assert {kind for kind, memory in declared.items() if memory is None} == idle
    more = worker_memory(config, StageId("validate"), execution(), (100_000, 50_000, 500))
    assert declared["validate"] == more  # a block is as large as before


def test_a_worker_on_a_gpu_declares_what_its_node_holds() -> None:
    on_gpu = worker_memory(CONFIG, StageId("recover", 1), execution(device="cuda"), UNKNOWN)
    assert on_gpu is not None
    assert 0 < on_gpu.needed < ESTIMATES["recover"].needed
    assert on_gpu.least == 0


def test_a_setting_takes_the_place_of_the_estimate_and_zero_declares_nothing() -> None:
    stated = WorkerMemory(2.5e9, 2.5e9)
    for kind in ("ingest", "recover"):
        assert worker_memory(CONFIG, StageId(kind), execution(memory_gb=2.5), UNKNOWN) == stated
        assert worker_memory(CONFIG, StageId(kind), execution(memory_gb=0), UNKNOWN) is None


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
        stage.kind: worker_memory(CONFIG, stage, how, UNKNOWN) for stage in stages_of(CONFIG)
    }


def test_the_real_images_are_counted_once_they_are_ingested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path)
    counts: dict[str, ImageCounts] = {}

    def noted(config: object, stage: StageId, how: object, known: ImageCounts) -> None:
        counts[stage.kind] = known

    monkeypatch.setattr(work, "worker_memory", noted)
    how = Execution(store=run.store.url)
    passes = Work(run, execution=how, observer=Notes(), pools=PoolProvider(how), selection={})
    stages = stages_of(run.config)
    passes.run_stage(stages[-1])
    index = JobPlan(run).index
    largest = max(index.class_sizes("train").values())
    assert counts["validate"] == (
        index.count_readable("train"),
        index.count_readable("test"),
        largest,
    )
    other = replace(run, name="never-ingested")
    passes = Work(other, execution=how, observer=Notes(), pools=PoolProvider(how), selection={})
    assert passes.known(stages[0]).real_images == UNKNOWN


def test_what_is_computed_for_a_stage_is_no_setting() -> None:
    """A flow is started with the settings, and computes it itself."""
    one = execution(memory_gb=1).model_copy(update={"worker_memory": WorkerMemory(1.0, 1.0)})
    dumped = one.model_dump(mode="json", exclude={"store"})
    assert Placement.model_validate(dumped).memory_gb == 1
    assert "worker_memory" not in dumped
