"""The provider of worker pools: in this process, in children, or on Ray, started on demand.

Only one pool exists at a time. The worker of the next stage is another class with another teacher
in memory, so the workers of the last stage are stopped first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from tasks.execution import Execution
from tasks.jobs import Job, WorkerSpec
from tasks.observer import Observer
from tasks.pools.dispatch import dispatch
from tasks.pools.events import Pool
from tasks.pools.failures import DispatchResult
from tasks.pools.local import local_pool
from tasks.pools.signals import terminable

__all__ = ["PoolProvider", "WorkerSpec"]


class PoolProvider:
    """Starts workers during a `with` block; a signal that ends the block stops them."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._pool: Pool | None = None
        self._ray: Mapping[str, str] | None = None  # environment of actors, once connected
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(terminable())
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.release()
        finally:  # Ray is stopped even if a worker cannot be
            self._stack.__exit__(*error)

    @property
    def workers(self) -> int:
        """Return the current number of workers."""
        return 0 if self._pool is None else self._pool.workers

    def release(self) -> None:
        """Stop the workers of the current pool."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def pool(self, spec: WorkerSpec, *, jobs: int) -> Pool:
        """Stop the last pool and start a new one.

        Args:
            spec: the worker.
            jobs: number of jobs; no more workers than that are started.

        Raises:
            ConfigError: the cluster cannot hold as many workers as are set.
            ClusterError: there is no cluster.
        """
        self.release()
        execution = self._execution
        if execution.local:
            workers = min(execution.workers or 1, max(1, jobs))
            self._pool = local_pool(spec, workers=workers, device=execution.device)
        else:
            self._pool = self._actors(spec, jobs)
        return self._pool

    def gang(
        self,
        spec: WorkerSpec,
        jobs: Sequence[Job[Any]],
        *,
        processes: int,
        stage: str,
        observer: Observer | None = None,
    ) -> DispatchResult:
        """Run jobs one after the other, each shared by the processes of a torch.distributed group.

        Every process builds the worker and calls its `run`; the receipt of rank 0 is returned.

        Raises:
            ConfigError: the cluster cannot hold as many processes.
            ClusterError: the processes were lost too often.
        """
        self.release()
        execution = self._execution
        if execution.local:
            self._pool = local_pool(spec, processes=processes, device=execution.device)
        else:
            self._pool = self._gang(spec, processes)
        return dispatch(jobs, self._pool, policy=execution.policy(), stage=stage, observer=observer)

    def _actors(self, spec: WorkerSpec, jobs: int) -> Pool:
        environment = self._connect()
        from tasks.pools.ray import RayPool
        from tasks.pools.ray_capacity import Resources, capacity, preflight

        execution = self._execution
        most = execution.workers or max(1, capacity(execution.num_cpus, execution.gpus))
        workers = min(most, max(1, jobs))
        preflight(Resources(workers, execution.num_cpus, execution.gpus))
        return RayPool(
            spec,
            workers=workers,
            num_cpus=execution.num_cpus,
            num_gpus=execution.gpus,
            env_vars=environment,
        )

    def _gang(self, spec: WorkerSpec, processes: int) -> Pool:
        environment = self._connect(processes)
        from tasks.pools.ray_capacity import Resources, preflight
        from tasks.pools.ray_train import gang_pool

        execution = self._execution
        preflight(Resources(processes, execution.num_cpus, execution.gpus), setting="processes")
        return gang_pool(
            spec,
            processes=processes,
            device=execution.device,
            num_cpus=execution.num_cpus,
            num_gpus=execution.gpus,
            env_vars=environment,
            start_seconds=execution.ready_timeout_seconds,
        )

    def _connect(self, processes: int = 1) -> Mapping[str, str]:
        """Connect to Ray once, and return the environment that actors need."""
        if self._ray is None:
            from tasks.pools.ray_cluster import connected

            execution = self._execution
            cpus = max(execution.workers or 1, processes) * execution.num_cpus
            self._ray = self._stack.enter_context(connected(execution.ray_address, num_cpus=cpus))
        return self._ray
