"""The end of a stage: failures are recorded, and the manifests are written last."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from distill_core.errors import ConfigError, DataError, ShardsFailed, ShardsPostponed
from distill_core.keys import NUMERICS
from distill_core.progress import Notice
from distill_core.storage.manifest import Manifest, load_manifest, save_manifest
from distill_core.storage.shard_store import ShardStore
from tasks.pools.failures import Failure
from tasks.run import Run
from tasks.runs.failure_records import failures
from tasks.runs.stage_status import lacking
from tasks.stages.inputs import Jobs
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.table import row_of

WITHOUT = (
    " With --allow-missing N, later stages continue without at most N shards, and results state it."
)


def raise_failures(run: Run, stage: StageId, failed: Mapping[str, Failure]) -> None:
    """Raise the failures of a stage; an error of the config or the data is raised as it is.

    Raises:
        ShardsFailed: shards failed.
        ShardsPostponed: each of them for a reason that may pass by itself.
    """
    raise_input_errors(failed)
    if failed:
        names = ", ".join(sorted(failed)[:10])
        without = "" if row_of(stage).is_whole(stage) else WITHOUT
        may_pass = all(failure.retryable for failure in failed.values())
        raise (ShardsPostponed if may_pass else ShardsFailed)(
            f"runs/{run.name}: {len(failed)} of the {stage} shards failed: {names}. The "
            f"others are complete. The reasons are in runs/{run.name}/failed/. Fix them, then run "
            f"`distill resume {run.name}`, which runs only what is missing.{without}"
        )


def raise_input_errors(failed: Mapping[str, Failure]) -> None:
    """Raise the first failure that the config or the data is the cause of, as it is."""
    for failure in failed.values():
        if isinstance(failure.error, ConfigError | DataError):
            raise failure.error


def close_stage(
    run: Run, stage: StageId, jobs: Jobs, *, allow_missing: int, plan: JobPlan | None = None
) -> bool:
    """Write the manifests of a stage if enough of it is complete; return whether they are written.

    At most `allow_missing` shards may be missing, and only shards that were given up. Those that
    earlier stages continued without count as well. A manifest names its missing shards and holds
    at least one complete shard.

    Args:
        run: the run.
        stage: the stage.
        jobs: its jobs by manifest.
        allow_missing: how many shards may be missing.
        plan: the one with these jobs, whose manifests are those that the new ones build on; by
            default a new one.
    """
    plan = plan or JobPlan(run)
    done = ShardStore(run.store, stage.kind).done()
    missing = {name: lacking(run, name, part, done) for name, part in jobs.items()}
    if any(missing.values()) and not _is_bearable(run, stage, jobs, done):
        return False
    if len({shard for shards in missing.values() for shard in shards}) > allow_missing:
        return False
    for name in jobs:
        write_manifest(plan, name, jobs, missing[name])
    return True


def close_with_record(stage: StageId, jobs: Jobs, *, plan: JobPlan, notice: Notice) -> bool:
    """Finish a stage that has a record if all of its shards are complete; return whether they are.

    Its manifest is written before the record. It only tells which shards the run has made.
    """
    done = ShardStore(plan.run.store, stage.kind).done()
    if any(job.key not in done for part in jobs.values() for job in part):
        return False
    for name in jobs:
        write_manifest(plan, name, jobs, ())
    row_of(stage).finish(plan, jobs, notice)
    return True


def _is_bearable(run: Run, stage: StageId, jobs: Jobs, done: Collection[str]) -> bool:
    """Return whether every missing shard was given up, and each manifest keeps at least one."""
    given_up: Collection[str] = () if row_of(stage).is_whole(stage) else failures(run, stage)
    return all(
        all(job.key in done or job.shard in given_up for job in part)
        and (not part or any(job.key in done for job in part))
        for part in jobs.values()
    )


def write_manifest(plan: JobPlan, name: StageId, jobs: Jobs, missing: tuple[str, ...]) -> None:
    """Write the manifest of some jobs, which are done but for those that are named as missing."""
    run = plan.run
    shard_store = ShardStore(run.store, name.kind)
    part = [job for job in jobs[name] if job.shard not in missing]
    markers = shard_store.markers([job.key for job in part])
    # A shared shard keeps the name its first run gave it; here it has this run's.
    present = [
        replace(marker, shard=job.shard)
        for marker, job in zip(markers, part, strict=True)
        if marker is not None
    ]
    if len(present) < len(part):
        raise DataError(
            f"{shard_store.store.uri(name.kind)}: markers vanished while the stage ran."
        )
    built_on = plan.built_on(name)
    before = load_manifest(run.store, run.name, str(name), sealed=run.sealed)
    manifest = Manifest.of(
        str(name), present, missing, numerics=NUMERICS, built_on=built_on, before=before
    )
    save_manifest(run.store, run.name, manifest)
