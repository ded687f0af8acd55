"""Workers in spawned children of this process; one worker may be a group that shares each job."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from distill_core.exit_codes import describe_exit
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.child import GroupMember, Reply, serve
from tasks.pools.events import Broken, Done, Event, Lost, OnProgress, Raised, Ready
from tasks.pools.host import ErrorCapture, JobProgress
from tasks.pools.supervision import marked, supervised

STOP_SECONDS = 5.0


@dataclass
class _Group:
    """The children that form one worker."""

    children: list[SpawnProcess]
    pipes: list[Connection]
    folder: str  # of the rendezvous file; empty for a group of one
    built: bool = False
    queue: list[Job[Any]] = field(default_factory=list)  # the first one is running, once built
    waiting: set[int] = field(default_factory=set)  # ranks that have not replied yet
    receipt: Receipt | None = None


class ProcessPool:
    """Workers in spawned children.

    Args:
        spec: the worker.
        workers: how many.
        processes: children per worker; they share each job in a torch.distributed group.
        device: "cpu" or "cuda".
    """

    def __init__(
        self, spec: WorkerSpec, *, workers: int, processes: int = 1, device: str = "cpu"
    ) -> None:
        self.workers = workers
        self._spec, self.processes, self._device = spec, processes, device
        self._groups: list[_Group] = []
        self._supervision = ExitStack()
        self._supervision.enter_context(supervised())
        try:
            for number in range(workers):
                self._groups.append(self._start(number))
        except BaseException:  # including interrupts: no child may stay behind
            self.close()
            raise

    @property
    def present(self) -> int:
        """Return the number of workers: they are children of this process."""
        return self.workers

    def submit(self, worker: int, job: Job[Any]) -> None:
        """Append a job; an idle worker starts it at once."""
        group = self._groups[worker]
        group.queue.append(job)
        if len(group.queue) == 1:
            self._begin(group)

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Return the events of the children; their progress goes to `on_progress`."""
        deadline = time.monotonic() + seconds
        while True:
            pipes = {pipe: n for n, group in enumerate(self._groups) for pipe in group.pipes}
            readable = wait(list(pipes), max(0.0, deadline - time.monotonic()))
            events: list[Event] = []
            for pipe, number in pipes.items():
                restarted = pipe not in self._groups[number].pipes
                if pipe in readable and not restarted:
                    events += self._receive(number, pipe, on_progress)
            if events or time.monotonic() >= deadline:
                return events

    def restart(self, worker: int) -> None:
        """Kill a worker's children and start new ones."""
        _stop(self._groups[worker])
        self._groups[worker] = self._start(worker)

    def describe(self) -> str:
        """Return how many children are alive."""
        alive = sum(child.is_alive() for group in self._groups for child in group.children)
        return f"{alive} of {self.workers * self.processes} child processes alive"

    def close(self) -> None:
        """Kill every child."""
        for group in self._groups:
            _stop(group)
        self._groups = []
        self._supervision.close()

    def _start(self, worker: int) -> _Group:
        folder = tempfile.mkdtemp(prefix="distill-") if self.processes > 1 else ""
        group = _Group([], [], folder, waiting=set(range(self.processes)))
        context = multiprocessing.get_context("spawn")
        for rank in range(self.processes):
            index = worker * self.processes + rank
            children = self.workers * self.processes
            member = GroupMember(
                rank, self.processes, f"{folder}/group", index, children, self._device
            )
            ours, theirs = context.Pipe()
            child = context.Process(target=serve, args=(theirs, self._spec, member), daemon=True)
            resource_tracker.ensure_running()  # later pools share it, so it is not this one's
            with marked():
                child.start()
            theirs.close()
            group.children.append(child)
            group.pipes.append(ours)
        return group

    def _begin(self, group: _Group) -> None:
        """Send the first job of the queue to every process of the group."""
        if not (group.built and group.queue):
            return
        group.waiting, group.receipt = set(range(self.processes)), None
        for pipe in group.pipes:
            with ErrorCapture():  # `_receive` notices a dead child
                pipe.send(group.queue[0])

    def _receive(self, number: int, pipe: Connection, on_progress: OnProgress) -> list[Event]:
        group = self._groups[number]
        rank = group.pipes.index(pipe)
        try:
            message: Reply | JobProgress | None = pipe.recv()
        except (EOFError, OSError):
            ended = describe_exit(_exit_code(group.children[rank]))
            self.restart(number)
            return [Lost(number, f"child process {number}.{rank} ended with {ended}.")]
        if isinstance(message, Reply):
            return self._replied(number, rank, message)
        if message is not None and rank == 0:
            on_progress(*message)
        return []

    def _replied(self, number: int, rank: int, reply: Reply) -> list[Event]:
        group = self._groups[number]
        if reply.error is not None:
            return self._failed(number, reply, reply.error)
        group.receipt = reply.receipt if rank == 0 else group.receipt
        group.waiting.discard(rank)
        if group.waiting:
            return []
        if reply.key is None:
            group.built = True
            self._begin(group)
            return [Ready(number)]
        assert group.receipt is not None
        receipt = group.receipt
        group.queue.pop(0)
        self._begin(group)
        return [Done(number, receipt)]

    def _failed(self, number: int, reply: Reply, error: Exception) -> list[Event]:
        """Report an error; restart a group, whose other children may wait for the failed one."""
        group = self._groups[number]
        if reply.key is None:
            return [Broken(number, error, reply.traceback)]
        raised = Raised(number, reply.key, error, reply.traceback)
        group.queue.pop(0)
        if self.processes > 1:
            self.restart(number)
            self._groups[number].queue = group.queue
        self._begin(self._groups[number])
        return [raised]


def _exit_code(child: SpawnProcess) -> int | None:
    child.join(STOP_SECONDS)
    return child.exitcode


def _stop(group: _Group) -> None:
    for child in group.children:
        child.kill()
    for child in group.children:
        child.join(STOP_SECONDS)
    for pipe in group.pipes:
        pipe.close()
    if group.folder:
        shutil.rmtree(group.folder, ignore_errors=True)
