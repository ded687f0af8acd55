"""One job shared by a gang of processes, placed and connected by Ray Train.

The gang is started anew for every job by an actor without resources of its own, so that to the
dispatcher it is one worker like any other: deadlines, attempts and lost nodes work as everywhere.
What the first rank returns and what any rank raises goes to that actor directly. Ray Train's own
report would need a checkpoint in a folder that all nodes share; without one, `result.metrics`
is None.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, get_context
from ray.train.torch import TorchConfig, TorchTrainer

from distill_core.errors import ClusterError
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.child import backend_for
from tasks.pools.failures import RemoteTraceback
from tasks.pools.host import Catch, Host, Peek, portable, sampled
from tasks.pools.ray import RayHost, RayPool

LEAST = {"CPU": 0.001}  # a placement group cannot be for nothing
TELL_SECONDS = 30.0
SAMPLE_SECONDS = 2.0


class GangHost(RayHost):
    """Runs each job in a gang, and hears from it. Settings: see `gang_pool`."""

    receipt: Receipt | None = None
    error: Exception | None = None
    traceback = ""
    seen: Peek | None = None

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self) -> None:
        """Build nothing: the gang does."""

    def run(self, job: Job) -> Receipt:
        """Run one job in a gang; raises what a rank raised.

        Raises:
            ClusterError: the gang did not come up, or lost a process.
        """
        self.receipt = self.error = self.seen = None
        home = ray.get_runtime_context().current_actor
        return run_distributed(self._spec, job, self, home, **self._settings)

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def peek(self) -> Peek | None:
        """Return how far the first rank is."""
        return self.seen

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def tell(self, key: str, done: int, total: int) -> None:
        """Note the first rank's progress."""
        self.seen = key, done, total

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def finish(self, receipt: Receipt) -> None:
        """Take the first rank's receipt."""
        self.receipt = receipt

    @ray.method(concurrency_group="peek")  # type: ignore[untyped-decorator]
    def fail(self, error: Exception, traceback: str) -> None:
        """Take what a rank raised; the first one to fail knows why, the others only follow."""
        if self.error is None:
            self.error, self.traceback = error, traceback


def gang_pool(
    spec: WorkerSpec,
    *,
    processes: int,
    device: str,
    num_cpus: float,
    num_gpus: float,
    env_vars: Mapping[str, str],
    start_seconds: float,
) -> RayPool:
    """Return a pool of one worker that is a gang.

    Args:
        spec: the worker; every rank builds one, inside a torch.distributed group.
        processes: ranks.
        device: "cpu" or "cuda", which decides the backend.
        num_cpus: Ray CPUs of each rank.
        num_gpus: Ray GPUs of each rank.
        env_vars: for processes that do not inherit ours.
        start_seconds: how long the ranks may take to be placed.
    """
    resources = {"CPU": num_cpus, "GPU": num_gpus}
    settings = {
        "processes": processes,
        "backend": backend_for(device),
        "resources": {name: count for name, count in resources.items() if count} or LEAST,
        "env_vars": dict(env_vars),
    }
    return RayPool(
        spec,
        workers=1,
        num_cpus=0,
        num_gpus=0,
        env_vars={
            **env_vars,
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{start_seconds:g}",
            "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative store stays where it is
            "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",  # a rank that waits for a failed one
        },
        host=GangHost,
        settings=settings,
    )


def run_distributed(
    spec: WorkerSpec,
    job: Job,
    heard: GangHost,
    home: Any,
    *,
    processes: int,
    backend: str,
    resources: Mapping[str, float],
    env_vars: Mapping[str, str],
) -> Receipt:
    """Run one job in a gang and return the receipt of rank 0.

    Args:
        spec: the worker that every rank builds.
        job: the job that they share.
        heard: where `home` keeps what the ranks say.
        home: handle of the actor that the ranks talk to.
        processes: ranks.
        backend: of torch.distributed.
        resources: of each rank.
        env_vars: of each rank.

    Raises:
        ClusterError: the gang did not come up, or lost a process.
    """
    with tempfile.TemporaryDirectory(prefix="train-", ignore_cleanup_errors=True) as folder:
        trainer = TorchTrainer(
            _rank,
            train_loop_config={"spec": spec, "job": job, "home": home},
            torch_config=TorchConfig(backend=backend),
            scaling_config=ScalingConfig(
                num_workers=processes,
                use_gpu="GPU" in resources,
                resources_per_worker=dict(resources),
            ),
            run_config=RunConfig(
                storage_path=folder,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": dict(env_vars)},
            ),
        )
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            if heard.error is not None:
                raise heard.error from RemoteTraceback(heard.traceback)
            raise ClusterError(
                f"{job.shard}: its processes were lost: {_last_line(error)}"
            ) from None
    if heard.receipt is None:
        raise ClusterError(f"{job.shard}: its processes ended without a receipt.")
    return heard.receipt


def _rank(config: dict[str, Any]) -> None:
    """Run the job as one of the ranks; the first one speaks."""
    home, host = config["home"], Host(config["spec"])
    if get_context().get_world_rank() > 0:
        _work(host, config["job"], home)
        return
    with sampled(host.peek, home.tell.remote, seconds=SAMPLE_SECONDS):
        receipt = _work(host, config["job"], home)
    ray.get(home.finish.remote(receipt), timeout=TELL_SECONDS)


def _work(host: Host, job: Job, home: Any) -> Receipt:
    with Catch() as caught:
        return host.run(job)
    assert caught.error is not None
    ray.get(home.fail.remote(portable(caught.error), caught.traceback), timeout=TELL_SECONDS)
    raise caught.error


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
