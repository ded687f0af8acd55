"""Workers without Ray: one in this very process, or children of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from tasks.jobs import Job, WorkerSpec
from tasks.pools.events import Broken, Done, Event, OnProgress, Pool, Raised, Ready
from tasks.pools.host import Catch, Host, sampled
from tasks.pools.process import ProcessPool

SAMPLE_SECONDS = 1.0


class InProcessPool:
    """One worker in this process: a debugger stops in it, and Ctrl-C ends it at once.

    A job that hangs cannot be killed from outside here, so deadlines do nothing.
    """

    workers = 1

    def __init__(self, spec: WorkerSpec, *, sample_seconds: float = SAMPLE_SECONDS) -> None:
        self._spec, self._sample_seconds = spec, sample_seconds
        self._jobs: deque[Job[Any]] = deque()
        self._host: Host | None = None

    def submit(self, worker: int, job: Job[Any]) -> None:
        """Append a job."""
        self._jobs.append(job)

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Build the worker, or do one job to its end; progress comes from a second thread."""
        if self._host is None:
            return [self._build()]
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        with Catch() as caught, sampled(self._host.peek, on_progress, seconds=self._sample_seconds):
            receipt = self._host.run(job)
        if caught.error is not None:
            return [Raised(0, job.key, caught.error, caught.traceback)]
        return [Done(0, receipt)]

    def _build(self) -> Event:
        host = Host(self._spec)
        with Catch() as caught:
            host.ready()
        self._host = host
        if caught.error is not None:
            return Broken(0, caught.error, caught.traceback)
        return Ready(0)

    def restart(self, worker: int) -> None:
        """Forget the worker and its jobs; the next `wait` builds it anew."""
        self.close()

    def describe(self) -> str:
        """Return what there is."""
        return "one worker in this process"

    def close(self) -> None:
        """Forget the worker."""
        self._host = None
        self._jobs.clear()


def local_pool(
    spec: WorkerSpec, *, workers: int = 1, processes: int = 1, device: str = "cpu"
) -> Pool:
    """Return a pool without Ray.

    Args:
        spec: the worker.
        workers: 1: in this process; more: one spawned child each.
        processes: processes that share each job in a torch.distributed group; their first returns
            the receipt.
        device: with "cuda", children are dealt out over the GPUs of this machine.
    """
    if workers == processes == 1:
        return InProcessPool(spec)
    return ProcessPool(spec, workers=workers, processes=processes, device=device)
