"""Ingestion of a dataset before there is a run: a new version is made only if its dataset differs.

The shards are those that the ingest stage of the run would make, so nothing is read twice.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex, number_classes
from distill_core.data.ingest import IngestPlan
from distill_core.errors import ShardsFailed, ShardsPostponed
from distill_core.storage.manifest import load_manifest
from distill_core.storage.patience import Patience
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.jobs import Job
from tasks.observer import Observer
from tasks.pools.dispatch import dispatch
from tasks.pools.failures import Failure, describe_error
from tasks.pools.provider import PoolProvider
from tasks.run import Run, default_name
from tasks.runs.finalise import raise_input_errors, write_manifest
from tasks.runs.memory_advice import advised, advising
from tasks.runs.run_stage import PLANS
from tasks.runs.worker_spec import worker_spec
from tasks.stages.dataset_record import record_dataset
from tasks.stages.ingest import STAGE, changing, jobs_of, merge_index
from tasks.stages.plan import JobPlan

T = TypeVar("T")


@dataclass(frozen=True)
class Ingested:
    """An ingested dataset and the shards of its parts."""

    index: DatasetIndex
    jobs: Sequence[Job[Any]]
    patience: Patience = Patience(0)

    def record(self, run: Run) -> None:
        """Declare the ingest stage of a run with this dataset done, waiting for the store."""
        self.patience.repeat(partial(self._record, run))

    def _record(self, run: Run) -> None:
        write_manifest(JobPlan(run), STAGE, {STAGE: tuple(self.jobs)}, ())
        record_dataset(run, self.index)


def ingest_ahead(
    config: RunConfig,
    store: Store,
    previous: DatasetIndex | None,
    *,
    execution: Execution,
    observer: Observer,
    base: Run | None = None,
    name: str | None = None,
) -> Ingested:
    """Index a dataset; parts that are finished are not read again.

    An unchanged dataset is listed once, and its index is that of the version before.

    Args:
        config: of the run to be.
        store: of the shards and of the index.
        previous: index of the version before; its class ids are kept.
        execution: where and how parts are read.
        observer: receives events, in this thread.
        base: the version before, which `previous` is the index of.
        name: of the run, for messages.

    Raises:
        DataError: the dataset is refused, a label is of no class, or it changes all the time.
        ShardsFailed, ShardsPostponed: a part could not be read.
    """
    run, started = Run(name or default_name(config), config, store), time.monotonic()
    notice = partial(observer.stage_notice, str(STAGE))
    patience = Patience(execution.outage_seconds)
    noticed: set[str] = set()
    jobs: tuple[Job[Any], ...] | None = None
    failed: Mapping[str, Failure] = {}
    for _ in range(PLANS + 1):
        plan = IngestPlan(config.data, previous)
        now = patience.repeat(partial(jobs_of, plan), notice)
        if jobs is not None and _keys(now) == _keys(jobs):
            _raise_failures(config, failed)
        else:
            for text in plan.notices():
                if text not in noticed:
                    notice(text)
                noticed.add(text)
            jobs = now
            done = patience.repeat(ShardStore(store, STAGE.kind).done, notice)
            if (tried := _run_missing(run, jobs, done, execution, observer)) is not None:
                failed = tried
                continue  # the dataset may have changed meanwhile
        index = patience.repeat(partial(_unchanged, base, config, plan, now), notice)
        if index is None:
            merged = partial(merge_index, config, store, plan, now, notice)
            index = patience.repeat(merged, notice)
        observer.stage_finished(str(STAGE), time.monotonic() - started)
        return Ingested(index, now, patience)
    raise changing(config.data)


def _keys(jobs: Sequence[Job[Any]]) -> list[str]:
    return [job.key for job in jobs]


def _unchanged(
    base: Run | None, config: RunConfig, plan: IngestPlan, jobs: Sequence[Job[Any]]
) -> DatasetIndex | None:
    """Return the index of the version before if the same parts were merged into it.

    A rule may leave out classes, which only the merge shows.
    """
    previous = plan.previous
    if base is None or previous is None or plan.rule is not None or base.config.data != config.data:
        return None
    manifest = load_manifest(base.store, base.name, str(STAGE))
    if manifest is None or [entry.key for entry in manifest.entries] != _keys(jobs):
        return None
    return previous if number_classes(plan.names, plan.known) == previous.classes else None


def _run_missing(
    run: Run,
    jobs: Sequence[Job[Any]],
    done: Collection[str],
    execution: Execution,
    observer: Observer,
) -> Mapping[str, Failure] | None:
    """Run the jobs whose keys are not done; workers are started only if there are any.

    Returns:
        the jobs that failed; None if there was none to run.
    """
    todo = [job for job in jobs if job.key not in done]
    observer.stage_started(str(STAGE), len(jobs), len(jobs) - len(todo))
    if not todo:
        return None
    with PoolProvider(execution) as pools, advising(STAGE):
        spec = worker_spec(run, STAGE, execution)
        pool = pools.pool(spec, jobs=len(todo), stage=str(STAGE), observer=observer)
        result = dispatch(
            todo, pool, policy=execution.policy(), stage=str(STAGE), observer=observer
        )
    return advised(result.failed, STAGE)


def _raise_failures(config: RunConfig, failed: Mapping[str, Failure]) -> None:
    """Raise the failures of parts; there is no run yet that could keep them."""
    raise_input_errors(failed)
    if failed:
        names, first = ", ".join(sorted(failed)[:10]), next(iter(failed.values())).error
        may_pass = all(failure.retryable for failure in failed.values())
        raise (ShardsPostponed if may_pass else ShardsFailed)(
            f"{config.data.path or config.data.format}: {len(failed)} parts of the dataset could "
            f"not be read: {names}. The first: {describe_error(first)} What was read is kept. Fix "
            "the cause, then run again."
        )
