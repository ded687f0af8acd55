"""The main loop of a spawned child: one worker, connected to its parent by a pipe.

While it works, a child sends its progress, or None, twice a second. It ends with its parent, so a
killed driver leaves no orphans.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from distill_core.lifetime import end_with_parent
from distill_core.machine_share import share_machine
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.host import ErrorCapture, Host, portable

BEAT_SECONDS = 0.5
# That a process waits for the others in a collective. Longer than anything that one of them does
# alone, such as saving a checkpoint in a store that answers slowly; a process that ended is noticed
# at once by other means.
COLLECTIVE_SECONDS = 3600


@dataclass(frozen=True)
class GroupMember:
    """The place of a child in its torch.distributed group and on its machine."""

    rank: int  # within its group
    size: int  # of its group
    rendezvous: str  # path of the file through which the group connects
    index: int  # among all children; chooses the GPU
    children: int  # of the pool, on this machine
    device: str


@dataclass(frozen=True)
class Reply:
    """The message of a child that has built its worker (key None) or ended a job."""

    key: str | None
    receipt: Receipt | None = None
    error: Exception | None = None
    traceback: str = ""


def serve(pipe: Connection, spec: WorkerSpec, member: GroupMember) -> None:
    """Build a worker, then run the jobs that arrive through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which stops us
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with_parent(parent.pid)
    host = Host(spec)
    with ThreadPoolExecutor(1) as thread:  # one thread for all calls, beside the messages
        try:
            _serve_jobs(pipe, host, member, thread)
        except (EOFError, OSError):
            signal.raise_signal(signal.SIGKILL)  # the parent is gone: abandon the job


def _serve_jobs(
    pipe: Connection, host: Host, member: GroupMember, thread: ThreadPoolExecutor
) -> None:
    def build() -> None:
        gpus = _choose_gpu(member) if member.device == "cuda" else 1
        share_machine(member.children, gpu_workers=-(-member.children // gpus))
        _join_group(member)
        host.ready()

    pipe.send(_run_reporting(pipe, host, None, thread, build))
    while True:
        job: Job[Any] = pipe.recv()
        pipe.send(_run_reporting(pipe, host, job.key, thread, partial(host.run, job)))


def _run_reporting(
    pipe: Connection,
    host: Host,
    key: str | None,
    thread: ThreadPoolExecutor,
    call: Callable[[], Receipt | None],
) -> Reply:
    """Call a function in the thread, send progress until it ends, and return its reply."""
    future = thread.submit(call)
    while not wait([future], BEAT_SECONDS).done:
        pipe.send(host.peek())
    with ErrorCapture() as captured:
        return Reply(key, future.result())
    assert captured.error is not None
    return Reply(key, None, portable(captured.error), captured.traceback)


def _choose_gpu(member: GroupMember) -> int:
    """Choose the GPU of this child, and return how many there are."""
    import torch

    count = torch.cuda.device_count()
    torch.cuda.set_device(member.index % count)
    return count


def _join_group(member: GroupMember) -> None:
    """Join the process group if there are several processes."""
    if member.size > 1:
        import torch.distributed

        torch.distributed.init_process_group(
            backend_for(member.device),
            init_method=f"file://{member.rendezvous}",
            rank=member.rank,
            world_size=member.size,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )


def backend_for(device: str) -> str:
    """Return the torch.distributed backends for tensors on the CPU and on the device."""
    return "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
