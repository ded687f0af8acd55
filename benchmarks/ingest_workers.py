"""Processes that ingest, started before they are measured, and what they and the driver cost."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.methods_cell import Silent
from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import IngestPlan
from distill_core.machine_share import usable_cpus
from distill_core.progress import ignore_notice
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.jobs import Job
from tasks.pools.dispatch import dispatch
from tasks.pools.events import Event, OnProgress, Ready
from tasks.pools.process import ProcessPool
from tasks.run import Run
from tasks.runs.ingest_ahead import Ingested, ingest_ahead
from tasks.runs.run_stage import worker_spec
from tasks.stages.ingest import STAGE, jobs_of, merge_index

START_SECONDS = 300.0
MAX_WAIT = 60.0


@dataclass(frozen=True)
class Cost:
    """What a call took."""

    cpu: float  # seconds of all processes
    wall: float  # seconds


class ReadyPool:
    """A pool whose processes stay from one stage to the next, each bound to one CPU.

    A worker on a machine of its own would use all of its CPUs; here each stands for one core.
    """

    def __init__(self, pool: ProcessPool) -> None:
        self.workers, self._pool = pool.workers, pool
        self._events = list[Event]()
        deadline = time.monotonic() + START_SECONDS
        while len(self._events) < pool.workers and time.monotonic() < deadline:
            self._events += pool.wait(MAX_WAIT, lambda *progress: None)
        if not all(isinstance(event, Ready) for event in self._events):
            raise RuntimeError(f"workers did not start: {self._events}")
        self._new = list(self._events)
        cpus = sorted(os.sched_getaffinity(0))
        for number, group in enumerate(pool._groups):
            for child in group.children:
                process = psutil.Process(child.pid)
                for thread in process.threads():
                    with suppress(OSError):
                        os.sched_setaffinity(thread.id, {cpus[number % len(cpus)]})

    def renew(self) -> None:
        """Present the workers as new ones to the next dispatcher."""
        self._new = list(self._events)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all workers so far."""
        children = [child.pid for group in self._pool._groups for child in group.children]
        times = [psutil.Process(pid).cpu_times() for pid in children]
        return sum(t.user + t.system for t in times)

    def submit(self, worker: int, job: Job) -> None:
        """Append a job."""
        self._pool.submit(worker, job)

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Return that the workers are ready, then the events of the pool."""
        if self._new:
            events, self._new = self._new, []
            return events
        return self._pool.wait(seconds, on_progress)

    def restart(self, worker: int) -> None:
        """Restart a worker."""
        self._pool.restart(worker)

    def describe(self) -> str:
        """Return how many processes are alive."""
        return self._pool.describe()

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


class Ingestion:
    """Ingestion of one dataset into a store of its own by some workers.

    Args:
        config: of a run on the dataset.
        folder: of the store.
        workers: processes.
    """

    def __init__(self, config: RunConfig, folder: Path, workers: int) -> None:
        self._store, self._folder = Store(str(folder)), folder
        self._execution = Execution(store=str(folder), local=True, workers=workers)
        self._run = Run("bench", config, self._store)
        spec = worker_spec(self._run, STAGE, self._execution)
        self.pool = ReadyPool(ProcessPool(spec, workers=workers))
        self.index: DatasetIndex | None = None

    def first(self) -> Cost:
        """Ingest into an empty store."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.pool.renew()

        def ingest() -> None:
            plan = IngestPlan(self._run.config.data)
            jobs = jobs_of(plan)
            result = dispatch(
                jobs,
                self.pool,
                policy=self._execution.policy(),
                stage=str(STAGE),
                observer=Silent(),
            )
            assert len(result.receipts) == len(jobs), result.failed
            self.index = merge_index(self._run.config, self._store, plan, jobs, ignore_notice)

        return cost_of(ingest, self.pool.cpu_seconds)

    def again(self) -> Cost:
        """Ingest the next version of the dataset, which has not changed."""
        before = self.index
        assert before is not None
        Ingested(before, jobs_of(IngestPlan(self._run.config.data))).record(self._run)

        def ingest() -> None:
            ingested = ingest_ahead(
                self._run.config,
                self._store,
                before,
                execution=self._execution,
                observer=Silent(),
                base=self._run,
            )
            assert ingested.index.id == before.id

        return cost_of(ingest, self.pool.cpu_seconds)

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


def cost_of(call: Callable[[], object], others: Callable[[], float] = float) -> Cost:
    """Return what a call costs in this process and in others.

    Args:
        call: what is measured.
        others: returns the CPU seconds of other processes so far.
    """
    cpu, wall = time.process_time() + others(), time.perf_counter()
    call()
    return Cost(time.process_time() + others() - cpu, time.perf_counter() - wall)


def efficiency(one: Cost, several: Cost, workers: int) -> float:
    """Return the rate of several workers over that of as many times one, by wall time."""
    return one.wall / (several.wall * min(workers, usable_cpus()))
