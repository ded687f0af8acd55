"""One job shared by a gang of processes, placed and connected by Ray Train.

An actor without resources of its own starts a new gang for every job. To the dispatcher this actor
is one worker like any other, so deadlines, attempts and lost nodes are handled as for all workers.
The receipt of the first rank and the errors of all ranks go to that actor directly: Ray Train's own
report would need a folder that all nodes share.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, get_context
from ray.train.torch import TorchConfig, TorchTrainer

from distill_core.errors import ClusterError
from distill_core.machine_share import share_machine
from tasks.execution import Execution
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.child import COLLECTIVE_SECONDS, backend_for
from tasks.pools.events import OnProgress
from tasks.pools.failures import RemoteTraceback
from tasks.pools.host import ErrorCapture, Host, JobProgress, portable, reporting_progress
from tasks.pools.ray import RayHost, RayPool
from tasks.pools.ray_capacity import Resources, await_room, capacity, has_room
from tasks.pools.ray_growth import demanded

MIN_RESOURCES = {"CPU": 0.001}  # a placement group must not be empty
REPORT_SECONDS = 30.0
MORE_SECONDS = 120.0  # that a job waits for room for all ranks, if fewer can do it
SAMPLE_SECONDS = 2.0
GangProgress = tuple[int, JobProgress | None]  # processes of the running job, and their progress


@dataclass(frozen=True)
class GangSettings:
    """The processes of a gang and what each of them gets."""

    processes: int  # ranks
    least: int  # ranks with which a job starts if there is no room for more
    backend: str  # of torch.distributed
    resources: Mapping[str, float]  # of each rank, by Ray's names
    env_vars: Mapping[str, str]  # of each rank
    wait_seconds: float  # for nodes that are away

    @property
    def demand(self) -> Resources:
        """Return what the ranks need of the nodes together."""
        cpus, gpus, memory = (self.resources.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
        return Resources(self.processes, cpus, gpus, memory)

    def placed(self, more_seconds: float) -> GangSettings | None:
        """Wait for room for all ranks, then for as many as it takes; None: there is none.

        Args:
            more_seconds: how long to wait for all, if fewer can do it.
        """
        few = replace(self, processes=self.least)
        patience = self.wait_seconds if self.least == self.processes else more_seconds
        if has_room(self.demand):
            return self
        with demanded(self.demand):
            if await_room(self.demand, seconds=min(patience, self.wait_seconds)):
                return self
            if self.least == self.processes:
                return None
            if not await_room(few.demand, seconds=self.wait_seconds):
                return None
        one = self.demand
        room = capacity(one.num_cpus, one.num_gpus, one.memory)
        return replace(self, processes=max(self.least, min(room, self.processes)))


class GangHost(RayHost):
    """Runs each job in a gang, whose ranks report to it, of as many as have a place.

    Its keyword argument is `gang`.
    """

    receipt: Receipt | None = None
    error: Exception | None = None
    traceback = ""
    progress: JobProgress | None = None
    processes = 0  # of the running job
    more_seconds = MORE_SECONDS  # 0: the last job has waited for all ranks in vain

    def ready(self) -> None:
        """Build nothing: the ranks build their own workers."""

    def run(self, job: Job[Any]) -> Receipt:
        """Run one job in a gang once its ranks have a place; raises the error of a rank.

        Raises:
            ClusterError: the gang did not start, or lost a process.
        """
        self.receipt, self.error, self.progress, self.processes = None, None, None, 0
        actor, gang = ray.get_runtime_context().current_actor, self._settings["gang"]
        placed = gang.placed(self.more_seconds)
        self.more_seconds = MORE_SECONDS if placed == gang else 0.0
        if placed is None:
            demand = replace(gang.demand, workers=gang.least)
            raise ClusterError(
                f"{job.shard}: {demand} are required, and the nodes had no room for them "
                f"within {gang.wait_seconds:g} s."
            )
        self.processes = placed.processes
        return run_distributed(self._spec, job, self, actor, placed)

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def peek(self) -> GangProgress:
        """Return the number of ranks, 0 while they have no place, and the progress of the first."""
        return self.processes, self.progress

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def report_progress(self, key: str, done: int, total: int) -> None:
        """Store the progress of the first rank."""
        self.progress = key, done, total

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def report_receipt(self, receipt: Receipt) -> None:
        """Store the receipt of the first rank."""
        self.receipt = receipt

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def report_error(self, error: Exception, traceback: str) -> None:
        """Store the first error of any rank; those of other ranks usually follow from it."""
        if self.error is None:
            self.error, self.traceback = error, traceback


class GangPool(RayPool):
    """A pool of one worker that is a gang."""

    processes = 0  # of the job that runs, or of the last one

    def receive(self, answer: GangProgress, on_progress: OnProgress) -> None:
        """Keep the number of processes, and report the progress."""
        self.processes, progress = answer
        super().receive(progress, on_progress)


def gang_pool(
    spec: WorkerSpec, execution: Execution, *, processes: range, env_vars: Mapping[str, str]
) -> GangPool:
    """Return a pool of one worker that is a gang.

    Args:
        spec: the worker; every rank builds one, inside a torch.distributed group.
        execution: what each rank gets, and how long to wait for its place.
        processes: numbers of ranks that a job may have, in ascending order.
        env_vars: environment variables, for processes that do not inherit ours.
    """
    memory = 0.0 if spec.memory is None else float(int(spec.memory.needed))
    resources = {"CPU": execution.num_cpus, "GPU": execution.gpus, "memory": memory}
    gang = GangSettings(
        processes=processes[-1],
        least=processes[0],
        backend=backend_for(execution.device),
        resources={name: count for name, count in resources.items() if count} or MIN_RESOURCES,
        env_vars=dict(env_vars),
        wait_seconds=execution.wait_for_workers_seconds,
    )
    return GangPool(
        replace(spec, memory=None),  # the ranks have it
        workers=1,
        num_cpus=0,
        num_gpus=0,
        env_vars={
            **env_vars,
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{execution.ready_timeout_seconds:g}",
            "RAY_CHDIR_TO_TRIAL_DIR": "0",  # keeps relative paths of stores valid
            "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",  # for ranks that wait for a failed one
        },
        host=GangHost,
        settings={"gang": gang},
    )


def run_distributed(
    spec: WorkerSpec, job: Job[Any], host: GangHost, actor: Any, gang: GangSettings
) -> Receipt:
    """Run one job in a gang and return the receipt of rank 0.

    Args:
        spec: the worker that every rank builds.
        job: the job that they share.
        host: receives the reports of the ranks, in this process.
        actor: handle of `host` for the ranks.
        gang: the ranks.

    Raises:
        ClusterError: the gang did not start, or lost a process.
    """
    with tempfile.TemporaryDirectory(prefix="train-", ignore_cleanup_errors=True) as folder:
        trainer = TorchTrainer(
            _run_rank,
            train_loop_config={"spec": spec, "job": job, "actor": actor},
            torch_config=TorchConfig(backend=gang.backend, timeout_s=COLLECTIVE_SECONDS),
            scaling_config=ScalingConfig(
                num_workers=gang.processes,
                use_gpu="GPU" in gang.resources,
                resources_per_worker=dict(gang.resources),
            ),
            run_config=RunConfig(
                storage_path=folder,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": dict(gang.env_vars)},
            ),
        )
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            if host.error is not None:
                raise host.error from RemoteTraceback(host.traceback)
            raise ClusterError(
                f"{job.shard}: its processes were lost: {_last_line(error)}"
            ) from None
    if host.receipt is None:
        raise ClusterError(f"{job.shard}: its processes ended without a receipt.")
    return host.receipt


def _run_rank(config: dict[str, Any]) -> None:
    """Run the job as one of the ranks; the first one reports progress and the receipt."""
    actor, host = config["actor"], Host(config["spec"])
    share_machine(get_context().get_local_world_size())
    if get_context().get_world_rank() > 0:
        _run_job(host, config["job"], actor)
        return
    with reporting_progress(host.peek, actor.report_progress.remote, seconds=SAMPLE_SECONDS):
        receipt = _run_job(host, config["job"], actor)
    ray.get(actor.report_receipt.remote(receipt), timeout=REPORT_SECONDS)


def _run_job(host: Host, job: Job[Any], actor: Any) -> Receipt:
    """Run the job; an error is reported to the actor and raised."""
    with ErrorCapture() as captured:
        return host.run(job)
    assert captured.error is not None
    report = actor.report_error.remote(portable(captured.error), captured.traceback)
    ray.get(report, timeout=REPORT_SECONDS)
    raise captured.error


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
