"""Workers as Ray actors. Ray's exceptions become events here and go no further."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

from distill_core.errors import ClusterError
from distill_core.machine_share import share_machine
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools import ray_capacity, ray_watch
from tasks.pools.events import Broken, Done, Event, Lost, OnProgress, Raised, Ready
from tasks.pools.host import ErrorCapture, Host, JobProgress, portable
from tasks.pools.signals import unwrapped_signals

FETCH_SECONDS = 30.0  # for a result that is available
COLOURS = re.compile(r"\x1b\[\d*m")  # Ray colours the head of a traceback
SIGNAL_HINT = (
    "If its process was ended by a signal, Ray does not report which one: on the node, `dmesg` "
    "names what the out-of-memory killer ended, and logs/worker-*.err a SIGSEGV or SIGABRT."
)
RAN_OUT = ("OUT_OF_MEMORY", "running low on memory")  # in Ray's account of a process it ended
PEEK_SECONDS = 1.0  # between two requests for the progress of a worker


@dataclass(frozen=True)
class Readiness:
    """The answer of an actor that has tried to build its worker."""

    node: str
    error: Exception | None = None
    traceback: str = ""


class RayHost(Host):
    """A host whose `peek` is served while `run` works, in a concurrency group of its own."""

    def __init__(self, spec: WorkerSpec, *, workers: int = 1, **settings: Any) -> None:
        super().__init__(spec)
        self._workers = workers  # of the pool
        self._settings = settings  # for subclasses

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def readiness(self) -> Readiness:
        """Build the worker. This call waits while the actor restarts; `run` fails at once."""
        with ErrorCapture() as captured:
            per_node, per_gpu = ray_capacity.sharers(self._workers)
            share_machine(per_node, gpu_workers=per_gpu)
            self.ready()
        error = None if captured.error is None else portable(captured.error)
        return Readiness(ray_capacity.node_name(), error, captured.traceback)

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def peek(self) -> JobProgress | None:
        """Return the progress of the running job."""
        return super().peek()


class RayPool:
    """One actor per worker. Actors without a place wait for one, and report nothing until then.

    Args:
        spec: the worker; Ray reserves the memory that it needs.
        workers: how many at most.
        num_cpus: Ray CPUs of each; without it Ray would reserve one.
        num_gpus: Ray GPUs of each.
        env_vars: environment variables, for processes that do not inherit ours.
        host: class of the actor, built from `spec` and `settings`.
        settings: keyword arguments of the host.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        workers: int,
        num_cpus: float,
        num_gpus: float,
        env_vars: Mapping[str, str] | None = None,
        host: type[RayHost] = RayHost,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.workers = workers
        self._spec, self._settings = spec, {"workers": workers, **(settings or {})}
        # `ps` and the dashboard then show the name of the worker's class.
        actor_class = type(spec.name, (host,), {"__doc__": host.__doc__})
        self._actor = ray.remote(concurrency_groups={"peek": 1})(actor_class).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=0 if spec.memory is None else int(spec.memory.needed),
            max_restarts=-1,
            max_task_retries=0,  # Ray would repeat a job without the dispatcher
            runtime_env={"env_vars": dict(env_vars)} if env_vars else None,
        )
        self._actors: list[Any] = []
        self._refs: dict[Any, tuple[int, str | None]] = {}  # (worker, job key); no key: readiness
        self._peeks: dict[Any, int] = {}
        self._nodes: dict[int, str] = {}  # of workers that have started
        self._present: set[int] = set()  # workers that were ready, and not lost since
        self._peeked = time.monotonic()
        for number in range(workers):
            self._actors.append(None)
            self._start(number)

    @property
    def present(self) -> int:
        """Return how many actors have a place and have built their worker."""
        return len(self._present)

    def submit(self, worker: int, job: Job[Any]) -> None:
        """Send a job; the queue of the actor keeps the order."""
        self._refs[self._actors[worker].run.remote(job)] = worker, job.key

    def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
        """Return the events of the actors, and report their progress.

        Raises:
            ClusterError: Ray is gone.
        """
        ray_watch.check()
        self._peek(on_progress)
        if not self._refs:  # Ray returns at once then
            time.sleep(seconds)
            return []
        try:
            with unwrapped_signals():  # Ray's core turns that of a signal into a SystemError
                first, _ = ray.wait(list(self._refs), num_returns=1, timeout=seconds)
        except ConnectionError as error:  # of a client of `ray://`
            raise ClusterError(f"The connection to the Ray cluster is lost: {error}") from None
        ray_watch.check()
        if not first:
            return []
        ready, _ = ray.wait(list(self._refs), num_returns=len(self._refs), timeout=0)
        return self._collect(ready)

    def restart(self, worker: int) -> None:
        """Kill an actor and start another; nothing else ends a hung kernel."""
        self._drop(worker)
        self._present.discard(worker)
        ray.kill(self._actors[worker], no_restart=True)
        self._start(worker)

    def describe(self) -> str:
        """Return the resources of the cluster."""
        return ray_capacity.describe()

    def close(self) -> None:
        """Kill every actor."""
        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor, no_restart=True)
        self._actors, self._refs, self._peeks = [], {}, {}

    def _start(self, worker: int) -> None:
        self._actors[worker] = self._actor.remote(self._spec, **self._settings)
        self._request_readiness(worker)

    def _request_readiness(self, worker: int) -> None:
        self._refs[self._actors[worker].readiness.remote()] = worker, None

    def _drop(self, worker: int) -> None:
        """Discard the open requests to a worker."""
        self._refs = {ref: call for ref, call in self._refs.items() if call[0] != worker}
        self._peeks = {ref: number for ref, number in self._peeks.items() if number != worker}

    def _collect(self, refs: Sequence[Any]) -> list[Event]:
        """Turn results into events; jobs that a worker finished before its loss come first."""
        calls = [self._refs.pop(ref) for ref in refs]
        events = [self._event(ref, *call) for ref, call in zip(refs, calls, strict=True)]
        self._present |= {event.worker for event in events if isinstance(event, Ready)}
        lost = {event.worker: event for event in events if isinstance(event, Lost)}
        self._present -= set(lost)
        lost = {worker: self._with_node(event) for worker, event in lost.items()}
        never_started = {worker for worker, key in calls if key is None and worker in lost}
        for worker in lost:
            # Ray restarts an actor by itself, but not one that it could not start at all.
            (self.restart if worker in never_started else self._await_restart)(worker)
        return [event for event in events if not isinstance(event, Lost)] + list(lost.values())

    def _event(self, ref: Any, worker: int, key: str | None) -> Event:
        try:
            answer: Receipt | Readiness = ray.get(ref, timeout=FETCH_SECONDS)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            text = COLOURS.sub("", str(error))
            return Broken(worker, cause, text) if key is None else Raised(worker, key, cause, text)
        except (RayError, GetTimeoutError) as error:
            return Lost(worker, _reason(error))
        if isinstance(answer, Receipt):
            return Done(worker, answer)
        self._nodes[worker] = answer.node
        if answer.error is not None:
            return Broken(worker, answer.error, answer.traceback, answer.node)
        return Ready(worker, answer.node)

    def _with_node(self, lost: Lost) -> Lost:
        node = self._nodes.get(lost.worker)
        return replace(lost, node_lost=node is not None and ray_capacity.is_gone(node))

    def _await_restart(self, worker: int) -> None:
        """Wait for nothing but readiness until the actor is restarted."""
        self._drop(worker)
        self._request_readiness(worker)

    def _peek(self, on_progress: OnProgress) -> None:
        """Request the progress of busy actors, and report what has arrived, without waiting."""
        arrived, _ = ray.wait(list(self._peeks), num_returns=len(self._peeks), timeout=0)
        for ref in arrived:
            del self._peeks[ref]
            self._report(ref, on_progress)
        if (now := time.monotonic()) - self._peeked < PEEK_SECONDS:
            return
        self._peeked = now
        busy = {worker for worker, key in self._refs.values() if key is not None}
        for worker in busy - set(self._peeks.values()):
            self._peeks[self._actors[worker].peek.remote()] = worker

    def _report(self, ref: Any, on_progress: OnProgress) -> None:
        try:
            answer = ray.get(ref, timeout=FETCH_SECONDS)
        except RayError:  # the result of the job has the reason
            return
        self.receive(answer, on_progress)

    def receive(self, answer: Any, on_progress: OnProgress) -> None:
        """Report what `peek` of an actor has answered."""
        progress: JobProgress | None = answer
        if progress is not None:
            on_progress(*progress)


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    reason = f"{type(error).__name__}: {first}"
    if isinstance(error, OutOfMemoryError) or any(words in str(error) for words in RAN_OUT):
        return f"{reason} Ray ended its process, because the node was running out of memory."
    if isinstance(error, ActorDiedError | ActorUnavailableError):
        reason += f" {SIGNAL_HINT}"
    return reason
