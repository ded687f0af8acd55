"""What a store costs at many shards: committing them, and finding out what is missing."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TypeVar

from benchmarks.scale_workers import commit_empty
from distill_core.config.load import load_run
from distill_core.sharding import ClassEntry
from distill_core.storage.manifest import Manifest, save_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job
from tasks.run import Run
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan

T = TypeVar("T")

CLASSES = 21_841
COUNTS = (219, 2_190, 21_900)  # shards of 100 classes and one image per class: IPC 1, 10, 100
COMMITTERS = 8
MISSING = 10
ONE_BY_ONE = 2_190  # shards at most; more of them only take longer
HEADER = (
    "shards",
    "commit, median ms",
    "commit, 95 % ms",
    "list s",
    "list, CPU s",
    "plan s",
    "read markers one by one s",
    "read markers s",
    "write manifest s",
)


def plan_of(store: Store, shards: int, *, ipc_range: int = 1) -> JobPlan:
    """Return a real plan over stand-ins for the dataset and the teacher.

    Args:
        store: where the run would be.
        shards: a multiple of 219, the blocks of 100 classes.
        ipc_range: images per class in one shard.
    """
    ipc = ipc_range * shards // COUNTS[0]
    settings = (f"ipc={ipc}", f"recover.ipc_range={ipc_range}", "posttrain.sets=[distilled]")
    config = load_run("rehearsal-21k", settings)
    plan = JobPlan(Run("bench", config, store))
    classes = tuple(ClassEntry(n, f"n{n:08d}") for n in range(CLASSES))
    plan.__dict__["index"] = SimpleNamespace(classes=classes, fingerprints={})
    weights = SimpleNamespace(sha256="0" * 64)
    plan.__dict__["teachers"] = (SimpleNamespace(file=lambda suffix: weights),)
    return plan


def measure(store: Store, shards: int) -> list[float | None]:
    """Commit nearly all shards, resume, return the numbers of `HEADER`; None: not measured."""
    shard_store = ShardStore(store, "recover")
    jobs = plan_of(store, shards).jobs(StageId("recover"))[StageId("recover")]
    assert len(jobs) == shards
    took = sorted(_commit_all(shard_store, jobs[:-MISSING]))
    cpu = time.process_time()
    done, listing = _timed(shard_store.done)
    cpu = time.process_time() - cpu
    todo, planning = _timed(lambda: _missing(plan_of(store, shards), done))
    assert len(todo) == MISSING
    _commit_all(shard_store, todo)
    keys = [job.key for job in jobs]
    slowly = None
    if shards <= ONE_BY_ONE:
        _, slowly = _timed(lambda: [shard_store.marker(key) for key in keys])
    markers, reading = _timed(lambda: [m for m in shard_store.markers(keys) if m is not None])
    assert len(markers) == shards
    _, writing = _timed(lambda: save_manifest(store, "bench", Manifest.of("recover", markers)))
    commits = (1000 * statistics.median(took), 1000 * took[int(0.95 * len(took))])
    return [shards, *commits, listing, cpu, planning, slowly, reading, writing]


def _commit_all(shard_store: ShardStore, jobs: Sequence[Job]) -> list[float]:
    """Commit jobs, a few at once, as workers do; return the seconds of each."""
    with ThreadPoolExecutor(COMMITTERS) as pool:
        return list(
            pool.map(
                lambda job: _timed(lambda: commit_empty(shard_store, job.key, job.shard))[1], jobs
            )
        )


def _missing(plan: JobPlan, done: frozenset[str]) -> list[Job]:
    return [job for job in plan.jobs(StageId("recover"))[StageId("recover")] if job.key not in done]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what some work returns, and its wall time in seconds."""
    since = time.perf_counter()
    found = work()
    return found, time.perf_counter() - since


def store_table(title: str, url: str, counts: Sequence[int]) -> list[str]:
    """Measure one kind of store and return Markdown lines."""
    lines = [
        f"## {title}",
        "",
        "| " + " | ".join(HEADER) + " | load average (1 min) |",
        "| " + " | ".join(["---"] * (len(HEADER) + 1)) + " |",
    ]
    for count in counts:
        shards, *values = measure(Store(f"{url}/{count}"), count)
        cells = [f"{shards:,}", *("-" if v is None else f"{v:.2f}" for v in values)]
        lines.append("| " + " | ".join([*cells, f"{os.getloadavg()[0]:.1f}"]) + " |")
        print(lines[-1], flush=True)
    return lines
