"""The capacity of a Ray cluster: how many workers of a size its nodes can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from distill_core.errors import ConfigError


@dataclass(frozen=True)
class Resources:
    """The resources of a number of equal workers."""

    workers: int
    num_cpus: float  # per worker
    num_gpus: float  # per worker

    def __str__(self) -> str:
        return (
            f"{self.workers} x num_cpus={self.num_cpus:g} = {self.workers * self.num_cpus:g} CPUs "
            f"and {self.workers} x num_gpus={self.num_gpus:g} = "
            f"{self.workers * self.num_gpus:g} GPUs"
        )


def capacity(num_cpus: float, num_gpus: float) -> int:
    """Return how many workers of this size the nodes can hold, each on a single node."""
    return sum(_node_capacity(node, num_cpus, num_gpus) for node in _nodes())


def preflight(demand: Resources, *, setting: str = "workers") -> None:
    """Refuse a demand that the cluster can never meet; Ray would wait for it without a message.

    Args:
        demand: the number of workers and the size of each.
        setting: name of the setting that gives the number.

    Raises:
        ConfigError: the message has both the demand and the resources of the cluster.
    """
    count = capacity(demand.num_cpus, demand.num_gpus)
    if count >= demand.workers:
        return
    raise ConfigError(
        f"{setting} = {demand.workers}: {demand} are required, but the cluster has {describe()}, "
        f"enough for {count}. Set fewer {setting} or smaller num_cpus and num_gpus, or add nodes."
    )


def sharers(workers: int) -> tuple[int, int]:
    """Return how many equal actors at most share the node of this actor, and how many its GPU.

    Args:
        workers: actors on all nodes.
    """
    actor = ray.get_runtime_context()
    num_cpus, num_gpus = (actor.get_assigned_resources().get(name, 0.0) for name in ("CPU", "GPU"))
    node = next(node for node in ray.nodes() if node["NodeID"] == actor.get_node_id())
    per_gpu = int(1 / num_gpus + 1e-6) if 0 < num_gpus < 1 else 1
    per_node = _node_capacity(node["Resources"], num_cpus, num_gpus)
    return min(workers, per_node), min(workers, per_gpu)


def describe() -> str:
    """Return the total and the free resources of the cluster, for messages."""
    total, free = _totals(ray.cluster_resources()), _totals(ray.available_resources())
    nodes = len(_nodes())
    return (
        f"{total['CPU']:g} CPUs and {total['GPU']:g} GPUs on {nodes} node{'s' * (nodes != 1)} "
        f"({free['CPU']:g} and {free['GPU']:g} free)"
    )


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _node_capacity(node: Mapping[str, float], num_cpus: float, num_gpus: float) -> int:
    demand = {"CPU": num_cpus, "GPU": num_gpus}
    counts = [
        int(node.get(name, 0.0) / amount + 1e-6) for name, amount in demand.items() if amount > 0
    ]
    return min(counts, default=1_000_000)


def _totals(resources: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(resources.get(name, 0.0)) for name in ("CPU", "GPU")}
