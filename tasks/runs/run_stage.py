"""One stage of a run: shards without a marker are dispatched, then the manifest is written.

The same function serves `--local`, Ray, a first run, a resume and a run that is already complete:
it reads the markers, runs what is missing, and writes the manifest last.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from distill_core.storage.shard_store import ShardStore
from tasks.execution import Execution
from tasks.jobs import Job, WorkerSpec
from tasks.observer import Observer
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import DispatchResult, Failure
from tasks.pools.provider import PoolProvider
from tasks.run import Run
from tasks.runs.failure_records import keep_failures
from tasks.runs.finalise import close_stage, raise_failures
from tasks.runs.stage_status import StageStatus, stage_status
from tasks.stages.inputs import Jobs
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.table import row_of


def run_stage(
    run: Run,
    stage: StageId,
    *,
    execution: Execution,
    observer: Observer,
    pools: PoolProvider,
    only: frozenset[str] | None = None,
) -> StageStatus:
    """Run the missing shards of a stage, then write its manifests; return if none is missing.

    Shards that are given up stay missing. If `execution.allow_missing` permits, the manifests are
    written without them; a later pass that permits fewer tries them again.

    Args:
        run: the run.
        stage: one of `stages_of` the config; the stages before it must have their manifests.
        execution: where and how jobs run.
        observer: receives events, in this thread.
        pools: starts workers when they are first needed.
        only: shards to run; other missing shards stay missing, and so does the manifest.

    Raises:
        ShardsFailed: more shards used up their attempts than may be missing; others are complete.
    """
    status = stage_status(run, stage)
    if status.complete or (only is None and status.nothing_to_do(execution.allow_missing)):
        return status
    if in_driver := row_of(stage).in_driver:
        in_driver(run, observer)
        return stage_status(run, stage)
    started, name = time.monotonic(), str(stage)
    plan = JobPlan(run)
    row_of(stage).check(plan)
    jobs = plan.jobs(stage)
    todo = _missing(run, stage, jobs)
    total = sum(len(part) for part in jobs.values())
    observer.stage_started(name, total, total - len(todo))
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
    observer.stage_finished(name, time.monotonic() - started)
    return status


def _missing(run: Run, stage: StageId, jobs: Jobs) -> list[Job[Any]]:
    """Return the jobs without a marker, from one listing, each key once."""
    done = ShardStore(run.store, stage.kind).done()
    return list({j.key: j for part in jobs.values() for j in part if j.key not in done}.values())


def _dispatch(
    run: Run,
    stage: StageId,
    jobs: list[Job[Any]],
    execution: Execution,
    observer: Observer,
    pools: PoolProvider,
) -> DispatchResult:
    kwargs = {"run": run.config.model_dump_json(), "name": run.name, "store": run.store.url}
    where = {"single_writer": run.store.single_writer, "device": execution.device}
    row, name = row_of(stage), str(stage)
    spec = WorkerSpec(row.worker, {**kwargs, **where, **row.worker_options(execution)})
    processes = row.processes(run.config)
    if processes > 1:
        return pools.gang(spec, jobs, processes=processes, stage=name, observer=observer)
    pool = pools.pool(spec, jobs=len(jobs))
    return dispatch(jobs, pool, policy=execution.policy(), stage=name, observer=observer)
