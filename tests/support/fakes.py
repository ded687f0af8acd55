"""Workers that do nothing, slowly, wrongly or fatally; importable, so that any process has them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from distill_core import errors
from distill_core.machine_share import WORKERS
from tasks.jobs import Job, Receipt
from tasks.pools.host import RECEIPT_BYTES


class FakeWorker:
    """Sleeps, raises or dies as the payload of each job specifies, once or always.

    Payload keys: `seconds` to sleep, in steps that `peek` shows; `error` to raise, by class name,
    if the job is in `split` parts; `die` by SIGKILL, or by `signal`; `once`: a file that lets
    `error`, `die` and `hang` happen one time only.
    """

    def __init__(self, *, log: str | None = None, broken: str | None = None) -> None:
        if broken is not None:
            raise make_error(broken, "cannot be built")
        self.log = log
        self.current_progress: tuple[int, int] | None = None

    def peek(self) -> tuple[int, int] | None:
        """Return (steps done, steps in total)."""
        return self.current_progress

    def run(self, job: Job) -> Receipt:
        """Act as the payload specifies, and write the job and the process to the log."""
        if self.log is not None:
            with open(self.log, "a") as log:
                log.write(f"{job.shard} {os.getpid()}\n")
        self.mischief(job)
        for step in range(10):
            self.current_progress = (step, 10)
            time.sleep(job.payload.get("seconds", 0.0) / 10)
        facts = {"pid": os.getpid(), WORKERS: os.environ.get(WORKERS)}
        return Receipt(job.key, job.shard, rows=1, summary=facts)

    def mischief(self, job: Job) -> None:
        """Raise, die or hang, if this is the time for it."""
        once = job.payload.get("once")
        if once is not None:
            if Path(once).exists():
                return
            Path(once).touch()
        if job.payload.get("die"):
            os.kill(os.getpid(), job.payload.get("signal", signal.SIGKILL))
        if (name := job.payload.get("error")) and job.split == job.payload.get("split", job.split):
            raise make_error(name, f"{job.shard} is poisoned")
        time.sleep(job.payload.get("hang", 0.0))


class GangWorker:
    """Adds up something from every process of its torch.distributed group."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)

    def peek(self) -> tuple[int, int]:
        """Return some progress."""
        return 1, 2

    def run(self, job: Job) -> Receipt:
        """Return the sum of rank + 1 over the group, or fail on one rank only."""
        import torch
        from torch import distributed

        rank = distributed.get_rank()
        if job.payload.get("error") and rank == 1:
            raise make_error(job.payload["error"], f"{job.shard} is poisoned")
        time.sleep(job.payload.get("seconds", 0.0))
        total = torch.tensor([rank + 1.0])
        distributed.all_reduce(total)
        facts = {"sum": total.item(), "rank": rank, "size": distributed.get_world_size()}
        facts |= {"cwd": os.getcwd(), WORKERS: os.environ[WORKERS]}
        return Receipt(job.key, job.shard, rows=int(total), summary=facts)


def make_error(name: str, message: str) -> Exception:
    """Return one of our errors, or a ValueError."""
    kind: type[Exception] = getattr(errors, name, ValueError)
    return kind(message)


def make_jobs(count: int, **payload: object) -> list[Job]:
    """Return jobs that all have the same payload."""
    return [Job(f"k{n}", f"s{n}", dict(payload)) for n in range(count)]


class Talkative:
    """Writes long receipts."""

    def run(self, job: Job) -> Receipt:
        return Receipt(job.key, job.shard, rows=5, summary={"text": "x" * RECEIPT_BYTES})
