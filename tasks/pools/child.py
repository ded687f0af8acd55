"""What runs in a spawned child: one worker, talking to its parent through a pipe.

A child tells its progress, or just that it lives, twice a second. So it notices when nobody listens
any more and ends: a killed driver leaves no orphans.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.host import Catch, Host, portable

BEAT_SECONDS = 0.5


@dataclass(frozen=True)
class GroupRank:
    """Which process a child is."""

    rank: int  # within its group
    size: int  # of its group
    meeting: str  # file where the group meets
    index: int  # among all children, to choose a GPU
    device: str


@dataclass(frozen=True)
class Answer:
    """What a child says when it was built (key None) or has ended a job."""

    key: str | None
    receipt: Receipt | None = None
    error: Exception | None = None
    traceback: str = ""


def serve(pipe: Connection, spec: WorkerSpec, place: GroupRank) -> None:
    """Build a worker, then do what comes through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, who then stops us
    host = Host(spec)
    with ThreadPoolExecutor(1) as thread:  # every call in the same thread, beside the beats
        try:
            _converse(pipe, host, place, thread)
        except (EOFError, OSError):
            signal.raise_signal(signal.SIGKILL)  # the parent is gone: do not finish the job


def _converse(pipe: Connection, host: Host, place: GroupRank, thread: ThreadPoolExecutor) -> None:
    def build() -> None:
        _take_place(place)
        host.ready()

    pipe.send(_answer(pipe, host, None, thread, build))
    while True:
        job: Job[Any] = pipe.recv()
        pipe.send(_answer(pipe, host, job.key, thread, partial(host.run, job)))


def _answer(
    pipe: Connection,
    host: Host,
    key: str | None,
    thread: ThreadPoolExecutor,
    call: Callable[[], Receipt | None],
) -> Answer:
    """Run something in the thread, and tell how far it is until it ends."""
    future = thread.submit(call)
    while not wait([future], BEAT_SECONDS).done:
        pipe.send(host.peek())
    with Catch() as caught:
        return Answer(key, future.result())
    assert caught.error is not None
    return Answer(key, None, portable(caught.error), caught.traceback)


def _take_place(place: GroupRank) -> None:
    """Choose a GPU and meet the group, if there is one or the other to be chosen or met."""
    if place.device == "cuda":
        import torch

        torch.cuda.set_device(place.index % torch.cuda.device_count())
    if place.size > 1:
        import torch.distributed

        torch.distributed.init_process_group(
            backend_for(place.device),
            init_method=f"file://{place.meeting}",
            rank=place.rank,
            world_size=place.size,
        )


def backend_for(device: str) -> str:
    """Return the torch.distributed backends for tensors on the CPU and on a device."""
    return "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
