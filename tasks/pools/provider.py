"""The provider of worker pools: in this process, in children, or on Ray, started on demand.

Only one pool exists at a time. The worker of the next stage is another class with another teacher
in memory, so the workers of the last stage are stopped first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tasks.execution import Execution
from tasks.jobs import Job, WorkerMemory, WorkerSpec
from tasks.observer import Observer
from tasks.pools import ray_watch
from tasks.pools.device import count_local
from tasks.pools.dispatch import dispatch
from tasks.pools.dispatch_state import Elsewhere
from tasks.pools.events import Pool
from tasks.pools.failures import DispatchResult
from tasks.pools.local import local_pool
from tasks.pools.signals import terminable

if TYPE_CHECKING:
    from tasks.pools.ray_capacity import Resources

__all__ = ["PoolProvider", "WorkerSpec"]

Notify = Callable[[str], None]


class PoolProvider:
    """Starts workers during a `with` block; a signal that ends the block stops them."""

    def __init__(self, execution: Execution) -> None:
        self._settings = execution  # of all pools
        self._execution = execution  # of the workers of the current pool
        self._pool: Pool | None = None
        self._ray: Mapping[str, str] | None = None  # environment of actors, once connected
        # Workers that the cluster has had room for, by their CPUs and GPUs
        self._most_room: dict[tuple[float, float], int] = {}
        self._stack, self._connection = ExitStack(), ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(terminable())
        self._stack.enter_context(self._connection)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.release()
        finally:  # Ray is stopped even if a worker cannot be
            self._stack.__exit__(*error)

    @property
    def workers(self) -> int:
        """Return how many workers are there at the moment."""
        return 0 if self._pool is None else self._pool.present

    @property
    def processes(self) -> int | None:
        """Return how many processes share the job that runs; None: as many as it is to have."""
        return getattr(self._pool, "processes", None)  # of gangs, which may have fewer

    def release(self) -> None:
        """Stop the workers of the current pool."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def disconnect(self) -> None:
        """Stop the workers of the current pool and leave Ray, until the next pool is started."""
        self.release()
        self._ray = None
        self._connection.close()

    def pool(
        self, spec: WorkerSpec, *, jobs: int, stage: str = "jobs", observer: Observer | None = None
    ) -> Pool:
        """Stop the last pool and start a new one, with as many workers as are set at most.

        Workers for which the cluster has no room start as soon as it has.

        Args:
            spec: the worker.
            jobs: number of jobs; no more workers than that are started.
            stage: name for the observer.
            observer: is told how many workers have no room.

        Raises:
            ConfigError: the cluster cannot hold one worker of the size that is set.
            ClusterError: there is no cluster, or it has lost the nodes that had room.
        """
        self.release()
        execution = self._execution = self._settings.on_cpu() if spec.cpu_only else self._settings
        if execution.local:
            workers = min(execution.worker_range.most or 1, max(1, jobs))
            self._pool = local_pool(spec, workers=workers, device=execution.device)
        else:
            self._pool = self._actors(spec, jobs, partial(_notify, observer, stage))
        return self._pool

    def gang(
        self,
        spec: WorkerSpec,
        jobs: Sequence[Job[Any]],
        *,
        processes: int,
        least: int | None = None,
        stage: str,
        observer: Observer | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> DispatchResult:
        """Run jobs one after the other, each shared by the processes of a torch.distributed group.

        Every process builds the worker and calls its `run`; the receipt of rank 0 is returned.

        Args:
            jobs: to run.
            spec: of the worker.
            processes: of the group.
            least: processes that a job may start with if there is no room for more; None: all.
            stage: name for messages and the observer.
            observer: is told of the jobs, and how many processes have no room.
            elsewhere: jobs that other drivers run.

        Raises:
            ConfigError: the cluster cannot hold as many processes.
            ClusterError: the processes were lost too often.
        """
        self.release()
        execution = self._execution = self._settings
        if execution.local:
            count = count_local(execution, processes, least=least or processes)
            self._pool = local_pool(spec, processes=count, device=execution.device)
        else:
            notify = partial(_notify, observer, stage)
            self._pool = self._gang(spec, processes, least or processes, notify)
        return dispatch(
            jobs,
            self._pool,
            policy=execution.policy(),
            stage=stage,
            observer=observer,
            elsewhere=elsewhere,
        )

    def _actors(self, spec: WorkerSpec, jobs: int, notify: Notify) -> Pool:
        environment = self._connect()
        from tasks.pools import ray_capacity
        from tasks.pools.ray import RayPool

        execution, span = self._execution, self._execution.worker_range
        workers = min(span.most or max(1, self._count_room()), max(1, jobs))
        least = min(span.least or 1, workers)
        demand = self._demand(spec, workers, least=least, notify=notify)
        room = ray_capacity.preflight(demand, least=least, setting="workers")
        if span.most is None and room < self._count_room():
            workers = min(workers, room)  # memory is the limit, and nobody set a number
        if room < workers:
            notify(f"the cluster has room for {room} of {workers} workers; others start later.")
        return RayPool(
            _declaring(spec, demand),
            workers=workers,
            num_cpus=execution.num_cpus,
            num_gpus=execution.gpus,
            env_vars=environment,
        )

    def _gang(self, spec: WorkerSpec, processes: int, least: int, notify: Notify) -> Pool:
        environment = self._connect(processes)
        from tasks.pools import ray_capacity
        from tasks.pools.ray_train import gang_pool

        demand = self._demand(spec, processes, least=least, notify=notify)
        room = ray_capacity.preflight(demand, least=least, setting="processes")
        if room < processes:
            notify(
                f"the cluster has room for {room} of {processes} processes; unless others join "
                "soon, these do the work of all."
            )
        spec, count = _declaring(spec, demand), range(least, processes + 1)
        return gang_pool(spec, self._execution, processes=count, env_vars=environment)

    def _demand(self, spec: WorkerSpec, workers: int, *, least: int, notify: Notify) -> Resources:
        """Return what workers require; wait for nodes if they may join, or had room before.

        Raises:
            ClusterError: there is no room for `least` workers, and no nodes came.
        """
        from tasks.pools import ray_capacity, ray_growth

        execution = self._execution
        demand = ray_capacity.Resources(workers, execution.num_cpus, execution.gpus)
        may_grow, awaited = execution.worker_range.least is not None, demand
        if may_grow and spec.memory is not None:  # else too little memory is refused at once
            awaited = replace(demand, memory=float(spec.memory.least))
        if may_grow or least <= self._count_room():
            seconds = execution.wait_for_workers_seconds
            ray_growth.await_nodes(awaited, least=least, seconds=seconds, notify=notify)
        return ray_capacity.with_memory(demand, spec.memory, least=least)

    def _count_room(self) -> int:
        """Return for how many workers the cluster has, or has had, room."""
        from tasks.pools.ray_capacity import capacity

        cpus, gpus = size = (self._execution.num_cpus, self._execution.gpus)
        # Where larger workers had room, these have it, too.
        before = [n for (c, g), n in self._most_room.items() if c >= cpus and g >= gpus]
        self._most_room[size] = max(*before, 0, capacity(*size))
        return self._most_room[size]

    def _connect(self, processes: int = 1) -> Mapping[str, str]:
        """Connect to Ray, once and after a loss, and return the environment that actors need."""
        if self._ray is not None and ray_watch.lost() is not None:
            self._ray = None
            self._connection.close()
        if self._ray is None:
            from tasks.pools.ray_cluster import connected

            execution = self._execution
            span = execution.worker_range
            cpus = max(span.most or 1, processes) * execution.num_cpus
            connection = connected(execution.ray_address, num_cpus=cpus)
            self._ray = self._connection.enter_context(connection)
            self._check_size()
        return self._ray

    def _check_size(self) -> None:
        """Refuse a cluster without room for one worker of any stage, before the first one runs.

        The first stages read images on CPUs. They can take hours, and would hide that the cluster
        has no GPUs. After a loss, nodes that had room are waited for instead.

        Raises:
            ConfigError: no node is large enough, and none is expected to join.
        """
        from tasks.pools import ray_capacity

        settings = self._settings
        is_fixed = settings.ray_address is not None and settings.worker_range.least is None
        if is_fixed and not self._most_room:
            one = ray_capacity.Resources(1, settings.num_cpus, settings.gpus)
            ray_capacity.preflight(one, setting="workers")


def _declaring(spec: WorkerSpec, demand: Resources) -> WorkerSpec:
    """Return a worker that declares the memory which a demand has for it."""
    if spec.memory is None:
        return spec
    return replace(spec, memory=WorkerMemory(demand.memory, demand.memory))


def _notify(observer: Observer | None, stage: str, text: str) -> None:
    if observer is not None:
        observer.stage_notice(stage, text)
