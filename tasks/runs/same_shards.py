"""Whether another config or dataset would change any shard of a run, by keys alone."""

from __future__ import annotations

from dataclasses import replace

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from tasks.run import Run
from tasks.runs.stage_status import manifests
from tasks.stages.inputs import NotReady
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan, PlanWithIndex
from tasks.stages.table import row_of, stages_of


def same_shards(base: Run, config: RunConfig, index: DatasetIndex) -> bool:
    """Return whether a run of this config and index would have exactly the shards of another run.

    The dataset is given, so its ingestion is not compared. The other stages are planned in order
    over the manifests of the other run. As long as all keys agree, those are the manifests that the
    new run would get, so the next stage can be planned.

    Args:
        base: a run whose manifests exist.
        config: of the run that would be made.
        index: of its dataset.
    """
    stages = stages_of(config)
    if stages != stages_of(base.config):
        return False
    plan = PlanWithIndex(replace(base, config=config), index)
    try:
        return all(_same(plan, base, stage) for stage in stages if not row_of(stage).record)
    except NotReady:
        return False


def _same(plan: JobPlan, base: Run, stage: StageId) -> bool:
    """Return whether a stage would list the shards that it lists, and lacks none."""
    jobs, stored = plan.jobs(stage), manifests(base, stage)
    return jobs.keys() == stored.keys() and all(
        not stored[name].missing
        and [(entry.shard, entry.key) for entry in stored[name].entries]
        == [(job.shard, job.key) for job in part]
        for name, part in jobs.items()
    )
