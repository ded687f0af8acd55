"""Running one stage of a run: what has no marker yet is dispatched, then the manifest is written.

The same function serves `--local`, Ray, a first run, a resume and a run that is already complete:
it asks the markers, does what is missing, and writes the manifest last.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from distill_core.data.index import ingest
from distill_core.errors import ConfigError, DataError, ShardsFailed
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.markers import StageShelf
from tasks.dispatch import dispatch
from tasks.execution import Execution
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.outcomes import DispatchResult
from tasks.plans import STAGES, JobPlan, Jobs
from tasks.plans.teachers import check_inherited
from tasks.pools import PoolProvider
from tasks.runs import Run
from tasks.stage_status import StageStatus, manifest_names, manifests, stage_status

WORKERS: Mapping[str, str] = {
    "squeeze": "tasks.trainers:SqueezeWorker",
    "statistics": "tasks.workers:StatisticsWorker",
    "recover": "tasks.workers:RecoverWorker",
    "relabel": "tasks.workers:RelabelWorker",
    "posttrain": "tasks.trainers:PosttrainWorker",
    "validate": "tasks.validators:ValidateWorker",
}


class Observer(Protocol):
    """Who wants to see a stage run: progress bars, plain lines, event logs, Prefect artifacts."""

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """A stage has `total` shards, `done` of them from before."""

    def job_started(self, stage: str, shard: str) -> None:
        """A worker begins a shard, or begins it again."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """A running shard is so far."""

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """A shard is committed."""

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """A shard is tried again."""

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """A shard used up its attempts."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """A stage wrote its manifests, or stays incomplete."""


def run_stage(
    run: Run,
    stage: str,
    *,
    execution: Execution,
    observer: Observer,
    pools: PoolProvider,
    only: frozenset[str] | None = None,
) -> StageStatus:
    """Do what a stage lacks, then write its manifests; return at once when it is complete.

    Args:
        run: the run.
        stage: one of `STAGES`; the stages before it must be complete.
        execution: where and how jobs run.
        observer: told what happens, in this thread.
        pools: starts workers on first use.
        only: shards to run; the rest stays missing, and so does the manifest.

    Raises:
        ShardsFailed: some shards used up their attempts; the others are done.
    """
    if stage == "ingest":
        return _run_ingest(run, observer)
    status = stage_status(run, stage)
    if status.complete:
        return status
    started = time.monotonic()
    plan = JobPlan(run)
    if stage == "squeeze":
        check_inherited(run.config, plan.index, run.store)
    jobs = plan.jobs(stage)
    todo = _missing(run, stage, jobs)
    every = sum(len(part) for part in jobs.values())
    observer.stage_started(stage, every, every - len(todo))
    wanted = [job for job in todo if only is None or job.shard in only]
    if wanted:
        start = secrets.randbelow(len(wanted))  # several drivers share the work, not double it
        result = _dispatch(run, stage, wanted[start:] + wanted[:start], execution, observer, pools)
        _settle(run, stage, result)
    if len(wanted) == len(todo):
        _write_manifests(run, stage, jobs)
    observer.stage_finished(stage, time.monotonic() - started)
    return stage_status(run, stage)


def _run_ingest(run: Run, observer: Observer) -> StageStatus:
    status = stage_status(run, "ingest")
    if status.complete:
        return status
    started = time.monotonic()
    observer.stage_started("ingest", 1, 0)
    observer.job_started("ingest", run.config.data.name)

    def progress(done: int, total: int) -> None:
        observer.job_progress("ingest", run.config.data.name, done, total)

    index = ingest(run.config.data, run.store, progress=progress)
    facts = {"dataset": index.id, "test_images": len(index.readable("test"))}
    run.store.put(run.path("ingest.json"), json.dumps(facts).encode())
    rows = index.train.num_rows + index.test.num_rows
    seconds = time.monotonic() - started
    observer.job_finished(
        "ingest", Receipt(index.id, run.config.data.name, seconds=seconds, won=True, rows=rows)
    )
    observer.stage_finished("ingest", seconds)
    return stage_status(run, "ingest")


def _missing(run: Run, stage: str, jobs: Jobs) -> list[Job]:
    """Return the jobs without a marker, from one listing, each key once."""
    done = StageShelf(run.store, stage).done()
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
    spec = WorkerSpec(WORKERS[stage], kwargs | {"device": execution.device})
    processes = processes_of(run, stage)
    if processes > 1:
        return pools.gang(spec, jobs, processes=processes, stage=stage, observer=observer)
    pool = pools.pool(spec, jobs=len(jobs))
    return dispatch(jobs, pool, policy=execution.policy(), stage=stage, observer=observer)


def processes_of(run: Run, stage: str) -> int:
    """Return how many processes share one job of a stage."""
    if stage == "squeeze" and run.config.squeeze.training is not None:
        return run.config.squeeze.training.processes
    return run.config.posttrain.processes if stage == "posttrain" else 1


def _settle(run: Run, stage: str, result: DispatchResult) -> None:
    """Keep what failed, and say so; a fault of the user's comes out as itself."""
    for shard, failure in result.failed.items():
        record = {"stage": stage, "shard": shard, **failure.to_dict()}
        run.store.put(run.path("failed", f"{stage}.{shard}.json"), json.dumps(record).encode())
    for failure in result.failed.values():
        if isinstance(failure.error, ConfigError | DataError):
            raise failure.error
    if result.failed:
        names = ", ".join(sorted(result.failed)[:10])
        raise ShardsFailed(
            f"runs/{run.name}: {len(result.failed)} of the {stage} shards failed: {names}. The "
            f"others are done. Reasons: runs/{run.name}/failed/; after mending, "
            f"`distill resume {run.name}` runs only what is missing."
        )


def _write_manifests(run: Run, stage: str, jobs: Jobs) -> None:
    shelf = StageShelf(run.store, stage)
    for name, part in jobs.items():
        markers = shelf.markers([job.key for job in part])
        # A shared shard keeps the name its first run gave it; here it has this run's.
        present = [
            replace(marker, shard=job.shard)
            for marker, job in zip(markers, part, strict=True)
            if marker is not None
        ]
        if len(present) < len(part):
            raise DataError(f"{shelf.store.uri(stage)}: markers vanished while the stage ran.")
        save_manifest(run.store, run.name, Manifest.of(name, present))


__all__ = [
    "STAGES",
    "Observer",
    "StageStatus",
    "manifest_names",
    "manifests",
    "run_stage",
    "stage_status",
]
