"""Checks of the devices and CPUs that workers need, before any of them starts."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass

from distill_core.errors import ConfigError
from distill_core.machine_share import memory_share
from tasks.execution import Execution

ELSEWHERE = "or name a cluster that has more with --ray-address"


@dataclass(frozen=True)
class NodeMemory:
    """The memory of one node, and how many workers share it."""

    host: int  # bytes
    workers: int
    fixed: bool = True  # no larger node can join later


def check_device(execution: Execution) -> None:
    """Refuse what workers on this machine could never get: CUDA, GPUs or CPUs that it lacks.

    The workers of a cluster that is joined by its address run elsewhere: a driver needs no GPU
    there, and Ray's resources are checked before the actors start.

    Raises:
        ConfigError: there is no GPU, or there are fewer GPUs or CPUs than one worker reserves.
    """
    if not execution.local and execution.ray_address is not None:
        return
    if execution.device == "cuda":
        _check_cuda(execution)
    if not (execution.local or _ray_is_started()):
        _check_reserved(execution)


def check_gang(execution: Execution, processes: int, *, least: int, stage: str) -> None:
    """Refuse a training whose processes would share a GPU, which NCCL does not support.

    Args:
        execution: where and how jobs run.
        processes: that share the training.
        least: processes that can do the work of all.
        stage: of the training, for the message.

    Raises:
        ConfigError: two processes would get one GPU.
    """
    if processes == 1 or execution.device != "cuda":
        return
    where = f"{stage} in {processes} processes"
    if not execution.local and execution.gpus != int(execution.gpus):
        raise ConfigError(
            f"{where}: num_gpus = {execution.gpus:g} puts several of them on one GPU, expected a "
            "GPU for each. Use --num-gpus 1, or set the stage's processes to 1."
        )
    if execution.local and least > (gpus := _count_gpus()):
        raise ConfigError(
            f"{where}: this machine has {gpus} GPUs, expected one for each. Set the stage's "
            f"processes to at most {gpus}, {ELSEWHERE}."
        )


def count_local(execution: Execution, processes: int, *, least: int) -> int:
    """Return how many processes of a training this machine starts: on GPUs, one for each.

    Args:
        execution: where and how jobs run.
        processes: that are to share the training.
        least: processes that can do the work of all.
    """
    if execution.device != "cuda":
        return processes
    return max(least, min(processes, _count_gpus()))


def node_memory(execution: Execution) -> NodeMemory | None:
    """Return the memory of the node that has the most; None: the nodes are not known yet.

    Raises:
        ConfigError: a variable that states how many workers share this machine is wrong.
    """
    if execution.local or execution.ray_address is None:
        return NodeMemory(memory_share(), execution.worker_range.most or 1)
    if not _ray_is_started():
        return None
    import ray

    sizes = [
        sum(node["Resources"].get(name, 0.0) for name in ("memory", "object_store_memory"))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return NodeMemory(int(max(sizes)), 1, fixed=False) if sizes else None


def gpu_memory(execution: Execution) -> int | None:
    """Return the memory of the first GPU of this machine in bytes; None: no worker uses it."""
    if execution.device != "cuda" or not (execution.local or execution.ray_address is None):
        return None
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):
            return int(torch.cuda.get_device_properties(0).total_memory)
    except (RuntimeError, AssertionError):  # no GPU, or no driver: `check_device` reports it
        return None


def gpu_workers(execution: Execution) -> int:
    """Return how many workers share one GPU at most."""
    if execution.local:
        return -(-(execution.worker_range.most or 1) // max(1, _count_gpus()))
    sharers = int(1 / execution.gpus + 1e-6) if 0 < execution.gpus < 1 else 1
    return min(sharers, execution.worker_range.most or sharers)


def _check_cuda(execution: Execution) -> None:
    import torch

    with warnings.catch_warnings(action="ignore"):  # torch warns about a driver that is too old
        available = torch.cuda.is_available()
    if not available:
        raise ConfigError(
            f"device = {execution.device}: torch {torch.__version__} finds no GPU on this machine. "
            "Check `nvidia-smi` and `distill doctor`, use --device cpu, or name a cluster that has "
            "GPUs with --ray-address."
        )


def _check_reserved(execution: Execution) -> None:
    """Refuse a worker that a Ray of this machine could not place.

    The number of workers is no reason: a local Ray is given as many logical CPUs as they need.
    """
    cpus = os.cpu_count() or 1
    if execution.num_cpus > cpus:
        raise ConfigError(
            f"num_cpus = {execution.num_cpus:g}: this machine has {cpus} CPUs, and one worker "
            f"would reserve more. Set --num-cpus to at most {cpus}, {ELSEWHERE}."
        )
    if execution.gpus > 0 and execution.gpus > (gpus := _count_gpus()):
        remedy = f"Set --num-gpus to at most {gpus}" if gpus else "Omit --num-gpus"
        raise ConfigError(
            f"num_gpus = {execution.gpus:g}: torch finds {gpus} GPUs on this machine, and one "
            f"worker would reserve more. {remedy}, {ELSEWHERE}."
        )


def _count_gpus() -> int:
    import torch

    with warnings.catch_warnings(action="ignore"):
        return torch.cuda.device_count()


def _ray_is_started() -> bool:
    """Return whether this process uses a Ray already, whose resources are its own."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
