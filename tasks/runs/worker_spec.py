"""The worker of a stage, as a pool starts it."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.run import Run
from tasks.stages.names import StageId
from tasks.stages.table import row_of


def worker_spec(
    run: Run, stage: StageId, execution: Execution, *, teachers: Sequence[str] = ()
) -> WorkerSpec:
    """Return the worker of a stage.

    Args:
        run: the run.
        stage: the stage.
        execution: where and how jobs run.
        teachers: sha256 of their weights, by number; none before they exist.
    """
    row = row_of(stage)
    execution = execution.on_cpu() if row.cpu_only else execution
    planned = {
        "outage_seconds": execution.outage_seconds,
        "job_timeout_seconds": execution.job_timeout_seconds,
        "checkpoint_every": execution.checkpoint_every,
        "teachers": teachers,
    }
    kwargs = {
        "run": run.config.model_dump_json(),
        "name": run.name,
        "store": run.store.url,
        "single_writer": run.store.single_writer,
        "device": execution.device,
        "planned": planned,
        **row.worker_options(execution),
    }
    memory = execution.worker_memory
    return WorkerSpec(row.worker, kwargs, cpu_only=row.cpu_only, memory=memory)
