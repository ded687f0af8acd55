"""Reading and packing images reserve no GPU, whatever device the other stages of a run use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.execution import Execution
from tasks.runs.worker_spec import worker_spec
from tasks.stages.names import StageId
from tasks.stages.table import sharded_kinds
from tests.support.fabricate import finished_run


@pytest.mark.parametrize("kind", sharded_kinds())
def test_only_ingestion_leaves_the_device_of_a_run(kind: str, tmp_path: Path) -> None:
    """And packing, which reads images as well."""
    execution = Execution(store=str(tmp_path), device="cuda", num_gpus=0.5)
    spec = worker_spec(finished_run(tmp_path), StageId(kind), execution)
    assert spec.cpu_only == (kind in ("ingest", "pack"))
    assert spec.kwargs["device"] == ("cpu" if spec.cpu_only else "cuda")


def test_settings_for_the_cpu_reserve_no_gpu_and_keep_everything_else() -> None:
    execution = Execution(store=".", device="cuda", num_cpus=4, workers=3)
    on_cpu = execution.on_cpu()
    assert (execution.gpus, on_cpu.gpus, on_cpu.device) == (1.0, 0.0, "cpu")
    assert execution.model_copy(update={"device": "cpu", "num_gpus": 0.0}) == on_cpu
