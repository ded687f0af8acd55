"""How much of the workers' time the dispatcher leaves unused, and how much of its own it takes."""

from __future__ import annotations

import heapq
import io
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import ray
from rich.console import Console

from benchmarks.scale_store import plan_of
from distill_core.config.load import load_run
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.progress.display import display
from flows.progress.event_log import EventLog
from flows.progress.followers import Several
from tasks.execution import Execution
from tasks.jobs import Job, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.ray import RayPool
from tasks.pools.ray_cluster import started
from tasks.run import Run
from tasks.stages.names import StageId

WORKERS = (1, 2, 4, 8, 16)
SHARDS = 219  # of 21,841 classes
SPREAD = 0.25  # sigma of the log-normal: batches and nodes of unequal speed
PLAN = "plan: names, batches and key of every shard"
LAST = 0.41  # the last block has 41 classes, not 100


def shard_lengths(mean: float, *, seed: int) -> list[float]:
    """Return seconds per shard: log-normal about a mean, in plan order, the last shard short."""
    draws = np.random.default_rng(seed).lognormal(-(SPREAD**2) / 2, SPREAD, SHARDS) * mean
    return [*draws[:-1].tolist(), float(draws[-1] * LAST)]


def ideal(lengths: Sequence[float], workers: int) -> float:
    """Return the efficiency of a dispatcher that costs nothing: the end alone has idle workers."""
    free = [0.0] * workers
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return sum(lengths) / (workers * max(free))


def efficiencies(mean: float, repeats: int) -> Iterator[tuple[int, list[float], float, float]]:
    """Yield (workers, measured efficiencies, ideal, load average) for each number of workers."""
    with started(num_cpus=max(WORKERS)):
        for workers in WORKERS:
            lengths = shard_lengths(mean, seed=workers)
            jobs = [Job(f"k{n}", f"s{n}", {"seconds": s}) for n, s in enumerate(lengths)]
            found = [_efficiency(jobs, workers) for _ in range(repeats)]
            yield workers, found, ideal(lengths, workers), os.getloadavg()[0]


def _efficiency(jobs: Sequence[Job], workers: int) -> float:
    with ready_pool(WorkerSpec("benchmarks.scale_workers:SleepingWorker"), workers) as pool:
        since = time.perf_counter()
        result = dispatch(jobs, pool, policy=Execution(store="-").policy())
        wall = time.perf_counter() - since
    assert len(result.receipts) == len(jobs), result.failed
    return sum(receipt.seconds for receipt in result.receipts) / (workers * wall)


@contextmanager
def ready_pool(spec: WorkerSpec, workers: int) -> Iterator[RayPool]:
    """Start actors and wait until every one has its worker: starting them is not dispatching."""
    pool = RayPool(spec, workers=workers, num_cpus=1, num_gpus=0)
    try:
        ray.get([actor.ready.remote() for actor in pool._actors])
        yield pool
    finally:
        pool.close()


def driver_cpu(folder: Path, *, shards: int, workers: int) -> dict[str, float]:
    """Return CPU milliseconds of the driver per empty shard, by what it does in a stage."""
    store = Store(str(folder))
    run = Run("bench", load_run("digits-demo"), store)
    shard_store, log = ShardStore(store, "recover"), EventLog(run)
    spent: dict[str, float] = {}
    with _timed(spent, PLAN):
        jobs = plan_of(store, shards, ipc_range=10).jobs(StageId("recover"))[StageId("recover")]
    spec = WorkerSpec(
        "benchmarks.scale_workers:EmptyWorker", {"store": store.url, "stage": "recover"}
    )
    with (
        started(num_cpus=workers),
        ready_pool(spec, workers) as pool,
        display(Console(file=io.StringIO())) as shown,
    ):
        observer = Several(shown, log)
        with _timed(spent, "list the markers"):
            done = shard_store.done()
            todo = [job for job in jobs if job.key not in done]
        observer.stage_started("recover", len(jobs), 0)
        with _timed(spent, "dispatch, progress lines and event log"):
            result = dispatch(
                todo, pool, policy=Execution(store="-").policy(), stage="recover", observer=observer
            )
            observer.stage_finished("recover", 0.0)
        assert len(result.receipts) == shards, result.failed
        with _timed(spent, "read the markers, write the manifest"):
            markers = [m for m in shard_store.markers([job.key for job in jobs]) if m is not None]
            save_manifest(store, run.name, Manifest.of("recover", markers))
    return {what: 1000 * seconds / shards for what, seconds in spent.items()}


@contextmanager
def _timed(spent: dict[str, float], what: str) -> Iterator[None]:
    since = time.process_time()
    yield
    spent[what] = time.process_time() - since


def dispatch_tables(folder: Path, *, mean: float, repeats: int, shards: int) -> list[str]:
    """Measure both and return Markdown lines."""
    lines = [
        f"## Efficiency of N workers: sum of job seconds / (N x wall), {SHARDS} sleeping shards",
        "",
        f"Lengths: log-normal, mean {mean:g} s, sigma {SPREAD}, in plan order, the last shard "
        f"{LAST:g} as long; seed = N. {repeats} repetitions. Ray actors on one machine with "
        "logical CPUs; wall time of the dispatch alone, actors started before. `ideal` is the same "
        "order with a dispatcher that costs nothing: the rest is the end, where workers run dry.",
        "",
        "| workers | median | lowest | ideal | load average (1 min) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for workers, found, best, load in efficiencies(mean, repeats):
        row = f"| {workers} | {statistics.median(found):.3f} | {min(found):.3f} | {best:.3f} |"
        lines.append(f"{row} {load:.1f} |")
        print(lines[-1], flush=True)
    before = os.getloadavg()[0]
    spent = driver_cpu(folder, shards=shards, workers=4)
    lines += [
        "",
        f"## CPU time of the driver per shard, {shards:,} empty shards, 4 actors, local disk",
        "",
        "Every thread of the driver process counts, those of Ray included. Each job carries the "
        "batches of a real shard: 100 classes, 10 images of each.",
        "",
        "| what | ms per shard |",
        "| --- | --- |",
        *(f"| {what} | {value:.2f} |" for what, value in spent.items()),
        f"| all but the plan | {sum(spent.values()) - spent[PLAN]:.2f} |",
        "",
        f"Load average before: {before:.1f}.",
    ]
    return lines
