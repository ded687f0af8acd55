"""Running one stage of a run: what has no marker yet is dispatched, then the manifest is written.

The same function serves `--local`, Ray, a first run, a resume and a run that is already complete:
it asks the markers, does what is missing, and writes the manifest last.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from distill_core.storage.markers import ShardStore
from tasks.execution import Execution
from tasks.jobs import Job, WorkerSpec
from tasks.observer import Observer
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import DispatchResult, Failure
from tasks.pools.provider import PoolProvider
from tasks.run import Run
from tasks.runs.finalise import close_stage, keep_failures, raise_failures
from tasks.runs.stage_status import StageStatus, manifest_names, manifests, stage_status
from tasks.stages.ingest import run_ingest
from tasks.stages.plan import STAGES, JobPlan, Jobs, kind_of, stages_of
from tasks.stages.squeeze import check_inherited

WORKERS: Mapping[str, str] = {
    "squeeze": "tasks.stages.trainers:SqueezeWorker",
    "statistics": "tasks.stages.statistics:StatisticsWorker",
    "select": "tasks.stages.select_worker:SelectWorker",
    "recover": "tasks.stages.image_workers:RecoverWorker",
    "relabel": "tasks.stages.image_workers:RelabelWorker",
    "posttrain": "tasks.stages.trainers:PosttrainWorker",
    "validate": "tasks.stages.validate:ValidateWorker",
}


def run_stage(
    run: Run,
    stage: str,
    *,
    execution: Execution,
    observer: Observer,
    pools: PoolProvider,
    only: frozenset[str] | None = None,
) -> StageStatus:
    """Do what a stage lacks, then write its manifests; return at once when it lacks nothing.

    Shards that are given up stay missing. With `execution.allow_missing` the manifests are written
    without them when they are few enough; a later pass that allows fewer tries them again.

    Args:
        run: the run.
        stage: one of `stages_of` its config; those before it must have their manifests.
        execution: where and how jobs run.
        observer: told what happens, in this thread.
        pools: starts workers on first use.
        only: shards to run; what else is missing stays so, and with it the manifest.

    Raises:
        ShardsFailed: shards used up their attempts, more than may be missing; the others are done.
    """
    status = stage_status(run, stage)
    if status.complete or (only is None and status.nothing_to_do(execution.allow_missing)):
        return status
    if stage == "ingest":
        run_ingest(run, observer)
        return stage_status(run, stage)
    started = time.monotonic()
    plan = JobPlan(run)
    if stage == "squeeze":
        check_inherited(run.config, plan.index, run.store)
    jobs = plan.jobs(stage)
    todo = _missing(run, stage, jobs)
    every = sum(len(part) for part in jobs.values())
    observer.stage_started(stage, every, every - len(todo))
    wanted = [job for job in todo if only is None or job.shard in only]
    failed: Mapping[str, Failure] = {}
    if wanted:
        start = secrets.randbelow(len(wanted))  # several drivers share the work, not double it
        result = _dispatch(run, stage, wanted[start:] + wanted[:start], execution, observer, pools)
        failed = result.failed
        keep_failures(run, stage, failed)
    has_manifest = close_stage(run, stage, jobs, allow_missing=execution.allow_missing)
    status = stage_status(run, stage)
    if not has_manifest:  # what failed here, another driver may have done meanwhile
        raise_failures(run, stage, {s: why for s, why in failed.items() if s in status.pending})
    observer.stage_finished(stage, time.monotonic() - started)
    return status


def _missing(run: Run, stage: str, jobs: Jobs) -> list[Job]:
    """Return the jobs without a marker, from one listing, each key once."""
    done = ShardStore(run.store, kind_of(stage)).done()
    return list({j.key: j for part in jobs.values() for j in part if j.key not in done}.values())


def _dispatch(
    run: Run,
    stage: str,
    jobs: list[Job],
    execution: Execution,
    observer: Observer,
    pools: PoolProvider,
) -> DispatchResult:
    kwargs = {"run": run.config.model_dump_json(), "name": run.name, "store": run.store.url}
    where = {"single_writer": run.store.single_writer, "device": execution.device}
    how = {"groups": execution.groups} if kind_of(stage) == "recover" else {}
    spec = WorkerSpec(WORKERS[kind_of(stage)], kwargs | where | how)
    processes = processes_of(run, stage)
    if processes > 1:
        return pools.gang(spec, jobs, processes=processes, stage=stage, observer=observer)
    pool = pools.pool(spec, jobs=len(jobs))
    return dispatch(jobs, pool, policy=execution.policy(), stage=stage, observer=observer)


def processes_of(run: Run, stage: str) -> int:
    """Return how many processes share one job of a stage."""
    if stage == "squeeze" and run.config.squeeze.training is not None:
        return run.config.squeeze.training.processes
    return run.config.posttrain.processes if kind_of(stage) == "posttrain" else 1


__all__ = [
    "STAGES",
    "StageStatus",
    "kind_of",
    "manifest_names",
    "manifests",
    "run_stage",
    "stage_status",
    "stages_of",
]
