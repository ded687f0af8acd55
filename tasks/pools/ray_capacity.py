"""The capacity of a Ray cluster: how many workers of a size its nodes can hold."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.util.client

from distill_core.errors import ConfigError
from tasks.jobs import WorkerMemory

POLL_SECONDS = 1.0  # between two looks at the nodes
PROBE_SECONDS = 1.0  # in which a node that is alive accepts a connection
ID_DIGITS = 8  # of the id of a node, in its name
Sleep = Callable[[float], None]  # seconds


@dataclass(frozen=True)
class Resources:
    """The resources of a number of equal workers."""

    workers: int
    num_cpus: float  # per worker
    num_gpus: float  # per worker
    memory: float = 0.0  # bytes per worker

    def __str__(self) -> str:
        text = (
            f"{self.workers} x num_cpus={self.num_cpus:g} = {self.workers * self.num_cpus:g} CPUs "
            f"and {self.workers} x num_gpus={self.num_gpus:g} = "
            f"{self.workers * self.num_gpus:g} GPUs"
        )
        if not self.memory:
            return text
        return f"{text}, with {self.memory / 1e9:.3g} GB of memory each,"


def capacity(num_cpus: float, num_gpus: float, memory: float = 0.0) -> int:
    """Return how many workers of this size the nodes can hold, each on a single node."""
    return sum(_node_capacity(node, num_cpus, num_gpus, memory) for node in _nodes())


def with_memory(demand: Resources, memory: WorkerMemory | None, *, least: int = 1) -> Resources:
    """Return a demand with the memory that its workers declare.

    Workers whose estimate does not fit `least` times declare as much as does, if that is the least
    that each needs: an estimate alone is no reason to refuse a run.

    Args:
        demand: the workers, and their CPUs and GPUs.
        memory: that each of them needs; None: it is not declared.
        least: how many of the workers must have a place at the same time.
    """
    if memory is None:
        return demand
    return replace(demand, memory=min(memory.needed, max(memory.least, _most(demand, least))))


def _most(demand: Resources, least: int) -> float:
    """Return the most memory with which `least` workers fit; 0: they do not fit at all."""
    nodes, size = _nodes(), (demand.num_cpus, demand.num_gpus)
    shares = {node.get("memory", 0.0) / count for node in nodes for count in range(1, least + 1)}
    fitting = (s for s in shares if sum(_node_capacity(n, *size, s) for n in nodes) >= least)
    return max(fitting, default=0.0)


def _largest(demand: Resources) -> float:
    """Return the memory of the largest node that has the CPUs and GPUs of one worker."""
    nodes = [n for n in _nodes() if _node_capacity(n, demand.num_cpus, demand.num_gpus) > 0]
    return max((float(node.get("memory", 0.0)) for node in nodes), default=0.0)


def preflight(demand: Resources, *, least: int = 1, setting: str = "workers") -> int:
    """Refuse a demand that the cluster cannot meet; Ray would wait for it without a message.

    Args:
        demand: the number of workers and the size of each.
        least: how many of them must fit; the others may start later.
        setting: name of the setting that gives the number.

    Returns:
        How many fit now, at most as many as are demanded.

    Raises:
        ConfigError: the message has both the demand and the resources of the cluster.
    """
    count = capacity(demand.num_cpus, demand.num_gpus, demand.memory)
    if count >= least:
        return min(count, demand.workers)
    largest = f", at most {_largest(demand) / 1e9:.3g} GB of memory on one of them"
    override = " Set memory_gb to another amount, or to 0 to declare none."
    raise ConfigError(
        f"{setting} = {demand.workers}: {demand} are required, but the cluster has {describe()}"
        f"{largest * bool(demand.memory)}, enough for {count}. Set fewer {setting} or smaller "
        f"num_cpus and num_gpus, or add nodes.{override * bool(demand.memory)}"
    )


def await_room(demand: Resources, *, seconds: float, sleep: Sleep = time.sleep) -> bool:
    """Wait until nodes have room for all workers; return whether they have.

    Args:
        demand: the number of workers and the size of each.
        seconds: how long to wait.
        sleep: waits for a number of seconds.
    """
    for _ in range(math.ceil(seconds / POLL_SECONDS)):
        if has_room(demand):
            return True
        sleep(POLL_SECONDS)
    return has_room(demand)


def has_room(demand: Resources) -> bool:
    """Return whether the nodes can hold all workers."""
    return capacity(demand.num_cpus, demand.num_gpus, demand.memory) >= demand.workers


def node_name() -> str:
    """Return the node of this process: its address and its id, as there may be several on a host.

    A machine that comes back has its address, but another id.
    """
    return _name(ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id())


def is_gone(name: str) -> bool:
    """Return whether a node is dead or does not answer any more.

    Ray itself takes up to half a minute to notice that. A driver that is connected by ``ray://``
    cannot reach the nodes and relies on Ray.

    Args:
        name: of `node_name`.
    """
    alive = {_name(n["NodeManagerAddress"], n["NodeID"]): n for n in ray.nodes() if n["Alive"]}
    if (node := alive.get(name)) is None:
        return True
    if ray.util.client.ray.is_connected():
        return False
    try:
        address = node["NodeManagerAddress"], node["NodeManagerPort"]
        socket.create_connection(address, PROBE_SECONDS).close()
    except OSError:
        return True
    return False


def sharers(workers: int) -> tuple[int, int]:
    """Return how many equal actors at most share the node of this actor, and how many its GPU.

    Args:
        workers: actors on all nodes.
    """
    actor = ray.get_runtime_context()
    reserved = actor.get_assigned_resources()
    num_cpus, num_gpus, memory = (reserved.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
    node = next(node for node in ray.nodes() if node["NodeID"] == actor.get_node_id())
    per_gpu = int(1 / num_gpus + 1e-6) if 0 < num_gpus < 1 else 1
    per_node = _node_capacity(node["Resources"], num_cpus, num_gpus, memory)
    return min(workers, per_node), min(workers, per_gpu)


def describe() -> str:
    """Return the total and the free resources of the cluster, for messages."""
    total, free = _totals(ray.cluster_resources()), _totals(ray.available_resources())
    nodes = len(_nodes())
    return (
        f"{total['CPU']:g} CPUs and {total['GPU']:g} GPUs on {nodes} node{'s' * (nodes != 1)} "
        f"({free['CPU']:g} and {free['GPU']:g} free)"
    )


def _name(address: str, node: str) -> str:
    return f"{address}/{node[:ID_DIGITS]}"


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _node_capacity(
    node: Mapping[str, float], num_cpus: float, num_gpus: float, memory: float = 0.0
) -> int:
    demand = {"CPU": num_cpus, "GPU": num_gpus, "memory": int(memory)}
    counts = [
        int(node.get(name, 0.0) / amount + 1e-6) for name, amount in demand.items() if amount > 0
    ]
    return min(counts, default=1_000_000)


def _totals(resources: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(resources.get(name, 0.0)) for name in ("CPU", "GPU")}
