"""Ingestion of a dataset before there is a run: a new version is made only if its dataset differs.

The shards are those that the ingest stage of the run would make, so nothing is read twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import IngestPlan
from distill_core.errors import DataError
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.patience import Patience
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.jobs import Job
from tasks.observer import Observer
from tasks.pools.dispatch import dispatch
from tasks.pools.provider import PoolProvider
from tasks.run import Run, default_name
from tasks.runs.finalise import raise_failures
from tasks.runs.run_stage import PLANS, worker_spec
from tasks.stages.dataset_record import record_dataset
from tasks.stages.ingest import STAGE, jobs_of, merge_index

T = TypeVar("T")


@dataclass(frozen=True)
class Ingested:
    """An ingested dataset and the shards of its parts."""

    index: DatasetIndex
    jobs: Sequence[Job[Any]]

    def record(self, run: Run) -> None:
        """Declare the ingest stage of a run with this dataset done."""
        markers = ShardStore(run.store, STAGE.kind).markers([job.key for job in self.jobs])
        present = [marker for marker in markers if marker is not None]
        if len(present) < len(markers):
            raise DataError(f"{run.store.uri(STAGE.kind)}: markers vanished since they were read.")
        save_manifest(run.store, run.name, Manifest.of(str(STAGE), present))
        record_dataset(run, self.index)


def ingest_ahead(
    config: RunConfig,
    store: Store,
    previous: DatasetIndex | None,
    *,
    execution: Execution,
    observer: Observer,
    name: str | None = None,
) -> Ingested:
    """Index a dataset; parts that are finished are not read again.

    Args:
        config: of the run to be.
        store: of the shards and of the index.
        previous: index of the version before; its class ids are kept.
        execution: where and how parts are read.
        observer: receives events, in this thread.
        name: of the run, for messages.

    Raises:
        DataError: the dataset is refused, or changes all the time.
        ShardsFailed: a part could not be read.
    """
    run, started = Run(name or default_name(config), config, store), time.monotonic()
    notice = partial(observer.stage_notice, str(STAGE))
    patience = Patience(execution.outage_seconds)
    noticed: set[str] = set()
    jobs: tuple[Job[Any], ...] | None = None
    for _ in range(PLANS + 1):
        plan = IngestPlan(config.data, previous)
        now = patience.repeat(partial(jobs_of, plan), notice)
        if jobs is not None and [job.key for job in now] == [job.key for job in jobs]:
            merged = partial(merge_index, config, store, plan, now, notice)
            index = patience.repeat(merged, notice)
            observer.stage_finished(str(STAGE), time.monotonic() - started)
            return Ingested(index, now)
        for text in plan.notices():
            if text not in noticed:
                notice(text)
            noticed.add(text)
        jobs = now
        _run_missing(run, jobs, execution, observer)
    raise DataError(
        f"{config.data.path or config.data.format}: the dataset changed each time it was listed. "
        "Run again when nothing writes to it."
    )


def _run_missing(
    run: Run, jobs: Sequence[Job[Any]], execution: Execution, observer: Observer
) -> None:
    """Run the jobs without a marker; workers are started only if there are any."""
    done = ShardStore(run.store, STAGE.kind).done()
    todo = [job for job in jobs if job.key not in done]
    observer.stage_started(str(STAGE), len(jobs), len(jobs) - len(todo))
    if not todo:
        return
    with PoolProvider(execution) as pools:
        spec = worker_spec(run, STAGE, execution)
        pool = pools.pool(spec, jobs=len(todo), stage=str(STAGE), observer=observer)
        result = dispatch(
            todo, pool, policy=execution.policy(), stage=str(STAGE), observer=observer
        )
    raise_failures(run, STAGE, result.failed)
