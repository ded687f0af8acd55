"""Growth of a Ray cluster: nodes that a stage waits for, and how an autoscaler learns of them.

An autoscaler adds nodes for what is waiting for a place. Actors that have none count, and so do the
placement groups that are made here while there is nothing else to place. They end with the driver,
also if it is killed; what `ray.autoscaler.sdk.request_resources` demands would stay, with its GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ray.util.placement_group import placement_group, remove_placement_group

from distill_core.errors import ClusterError
from tasks.pools import ray_capacity
from tasks.pools.ray_capacity import Resources

PLACES = 128  # that are demanded at once; the actors of a pool demand the others
Notify = Callable[[str], None]


@contextmanager
def demanded(demand: Resources) -> Iterator[None]:
    """Demand a place for each worker until the block ends; without an autoscaler, nothing happens.

    The block is for waiting only: the demanded places are taken until it ends.
    """
    amounts = {"CPU": demand.num_cpus, "GPU": demand.num_gpus, "memory": float(int(demand.memory))}
    bundle = {name: amount for name, amount in amounts.items() if amount > 0}
    count = min(demand.workers, PLACES) if bundle else 0
    with ExitStack() as groups:
        for _ in range(count):
            groups.callback(remove_placement_group, placement_group([bundle]))
        yield


def await_nodes(demand: Resources, *, least: int, seconds: float, notify: Notify) -> None:
    """Wait until nodes have room for some of the workers of a stage.

    Args:
        demand: all workers that the stage takes; an autoscaler learns of them.
        least: how many must have room.
        seconds: how long to wait.
        notify: is told what is waited for.

    Raises:
        ClusterError: the nodes did not come.
    """
    few = replace(demand, workers=least)
    if ray_capacity.has_room(few):
        return
    there = ray_capacity.describe()
    notify(f"waiting up to {seconds:g} s for nodes: {few} are required, {there} are there.")
    with demanded(demand):
        if ray_capacity.await_room(few, seconds=seconds):
            return
    raise ClusterError(
        f"{few} are required, and within {seconds:g} s no nodes with room for them came: there are "
        f"{ray_capacity.describe()}. Finished shards are kept. Add nodes or look at the "
        "autoscaler, then run `distill resume`."
    )
