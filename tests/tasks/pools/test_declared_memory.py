"""The memory that workers declare, on nodes of several sizes that only Ray's listing names."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from tasks.jobs import WorkerMemory
from tasks.pools.ray_capacity import Resources, capacity, with_memory

GB = 10**9


def nodes(*sizes: int) -> list[dict[str, Any]]:
    """Return nodes with four GPUs and so many GB of memory each, as Ray lists them."""
    resources = [{"CPU": 16.0, "GPU": 4.0, "memory": float(size * GB)} for size in sizes]
    return [{"Alive": True, "Resources": each} for each in resources]


@pytest.mark.parametrize(
    ("sizes", "needed", "least", "ranks", "declared"),
    [
        ((32,), 10, 3, 3, 10),  # the estimate fits
        ((32,), 10, 3, 4, 8),  # a quarter of the node each
        ((100, 30), 40, 15, 2, 40),  # both on the large one
        ((100, 30), 40, 15, 4, 30),  # three on the large one, one on the small one
        ((32,), 10, 9, 4, 9),  # what is certain does not fit: the run is refused
    ],
)
def test_an_estimate_that_does_not_fit_all_processes_is_no_reason_to_refuse_them(
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    needed: int,
    least: int,
    ranks: int,
    declared: int,
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: nodes(*sizes))
    memory = WorkerMemory(needed * GB, least * GB)
    demand = with_memory(Resources(ranks, num_cpus=1, num_gpus=1), memory, least=ranks)
    assert demand.memory == declared * GB
    assert (capacity(1, 1, demand.memory) >= ranks) == (declared > least)
