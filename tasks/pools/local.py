"""Pools without Ray: one worker in this process, or workers in children of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from tasks.jobs import Job, WorkerSpec
from tasks.pools.events import Broken, Done, Event, OnProgress, Pool, Raised, Ready
from tasks.pools.host import ErrorCapture, Host, reporting_progress
from tasks.pools.process import ProcessPool

SAMPLE_SECONDS = 1.0


class InProcessPool:
    """One worker in this process: a debugger can stop in it, and Ctrl-C ends it at once.

    A job that hangs cannot be killed, so deadlines have no effect.
    """

    workers = present = processes = 1

    def __init__(self, spec: WorkerSpec, *, sample_seconds: float = SAMPLE_SECONDS) -> None:
        self._spec, self._sample_seconds = spec, sample_seconds
        self._jobs: deque[Job[Any]] = deque()
        self._host: Host | None = None

    def submit(self, worker: int, job: Job[Any]) -> None:
        """Append a job."""
        self._jobs.append(job)

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Build the worker, or run one job to its end; a second thread reports progress."""
        if self._host is None:
            return [self._build()]
        if not self._jobs:
            time.sleep(seconds)
            return []
        job = self._jobs.popleft()
        progress = reporting_progress(self._host.peek, on_progress, seconds=self._sample_seconds)
        with ErrorCapture() as captured, progress:
            receipt = self._host.run(job)
        if captured.error is not None:
            return [Raised(0, job.key, captured.error, captured.traceback)]
        return [Done(0, receipt)]

    def _build(self) -> Event:
        host = Host(self._spec)
        with ErrorCapture() as captured:
            host.ready()
        self._host = host
        if captured.error is not None:
            return Broken(0, captured.error, captured.traceback)
        return Ready(0)

    def restart(self, worker: int) -> None:
        """Discard the worker and its jobs; the next `wait` builds it again."""
        self.close()

    def describe(self) -> str:
        """Return that the worker is in this process."""
        return "one worker in this process"

    def close(self) -> None:
        """Discard the worker and its jobs."""
        self._host = None
        self._jobs.clear()


def local_pool(
    spec: WorkerSpec, *, workers: int = 1, processes: int = 1, device: str = "cpu"
) -> Pool:
    """Return a pool without Ray.

    Args:
        spec: the worker.
        workers: 1: in this process; more: one spawned child each.
        processes: processes that share each job in a torch.distributed group; rank 0 returns the
            receipt.
        device: "cpu" or "cuda"; on CUDA, children are distributed over the GPUs of this machine.
    """
    if workers == processes == 1:
        return InProcessPool(spec)
    return ProcessPool(spec, workers=workers, processes=processes, device=device)
