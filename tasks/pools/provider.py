"""Gives each stage its workers: in this process, in children, or on Ray, which starts on demand.

Only one pool exists at a time. The next stage's worker is another class with another teacher in
memory, so the workers of the last one go first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

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
    """Starts workers for the length of a `with` block; a signal that ends the block ends them."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._pool: Pool | None = None
        self._ray: Mapping[str, str] | None = None  # environment for actors, once connected
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(terminable())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.release()
        finally:  # Ray stops even where a worker does not
            self._stack.__exit__(kind, error, trace)

    @property
    def workers(self) -> int:
        """Return how many workers there are now."""
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
            jobs: how many there are to do; more workers than that are not started.

        Raises:
            ConfigError: the cluster cannot hold as many workers as were asked for.
            ClusterError: there is no cluster.
        """
        self.release()
        how = self._execution
        if how.local:
            workers = min(how.workers or 1, max(1, jobs))
            self._pool = local_pool(spec, workers=workers, device=how.device)
        else:
            self._pool = self._actors(spec, jobs)
        return self._pool

    def gang(
        self,
        spec: WorkerSpec,
        jobs: Sequence[Job],
        *,
        processes: int,
        stage: str,
        observer: Observer | None = None,
    ) -> DispatchResult:
        """Run jobs one after the other, each shared by processes in a torch.distributed group.

        Every process builds the worker and calls its `run`; rank 0's receipt counts.

        Raises:
            ConfigError: the cluster cannot hold as many processes.
            ClusterError: the processes were lost too often.
        """
        self.release()
        how = self._execution
        if how.local:
            self._pool = local_pool(spec, processes=processes, device=how.device)
        else:
            self._pool = self._gang(spec, processes)
        return dispatch(jobs, self._pool, policy=how.policy(), stage=stage, observer=observer)

    def _actors(self, spec: WorkerSpec, jobs: int) -> Pool:
        environment = self._connect()
        from tasks.pools import ray_cluster
        from tasks.pools.ray import RayPool

        how = self._execution
        wanted = how.workers or max(1, ray_cluster.room(how.num_cpus, how.gpus))
        workers = min(wanted, max(1, jobs))
        ray_cluster.preflight(ray_cluster.Resources(workers, how.num_cpus, how.gpus))
        return RayPool(
            spec,
            workers=workers,
            num_cpus=how.num_cpus,
            num_gpus=how.gpus,
            env_vars=environment,
        )

    def _gang(self, spec: WorkerSpec, processes: int) -> Pool:
        environment = self._connect(processes)
        from tasks.pools import ray_cluster
        from tasks.pools.ray_train import gang_pool

        how = self._execution
        demand = ray_cluster.Resources(processes, how.num_cpus, how.gpus)
        ray_cluster.preflight(demand, what="processes")
        return gang_pool(
            spec,
            processes=processes,
            device=how.device,
            num_cpus=how.num_cpus,
            num_gpus=how.gpus,
            env_vars=environment,
            start_seconds=how.ready_timeout_seconds,
        )

    def _connect(self, processes: int = 1) -> Mapping[str, str]:
        """Connect to Ray once, and return the environment that actors need."""
        if self._ray is None:
            from tasks.pools import ray_cluster

            how = self._execution
            cpus = max(how.workers or 1, processes) * how.num_cpus
            self._ray = self._stack.enter_context(
                ray_cluster.connected(how.ray_address, num_cpus=cpus)
            )
        return self._ray
