"""The memory that a worker of a stage declares to Ray: a setting, or the estimate of the stage."""

from __future__ import annotations

from distill_core.config.schema import RunConfig
from flows.estimate.memory.making import Launch
from flows.estimate.memory.real_data import ImageCounts, real_data
from flows.estimate.memory.stages import stage_memories
from tasks.execution import Execution
from tasks.jobs import WorkerMemory
from tasks.stages.names import StageId

GB = 1e9


def worker_memory(
    config: RunConfig, stage: StageId, execution: Execution, counts: ImageCounts
) -> WorkerMemory | None:
    """Return the memory on its node that a worker needs; None: none is to be declared.

    Args:
        config: of the run.
        stage: that the worker is of.
        execution: with the memory that a person set, or none.
        counts: the real images, as far as they are known.
    """
    stated = execution.memory_gb
    if stated is not None:
        return WorkerMemory(GB * stated, GB * stated) if stated else None
    launch = Launch(execution.device, execution.groups)
    for memory in stage_memories(config, launch, real_data(execution, counts)):
        if memory.stage == stage.kind:
            own = memory.own if execution.device == "cpu" else memory.own.on("host")
            return WorkerMemory(own.needed, own.least)
    return None  # nothing is estimated for this stage, or for its networks
