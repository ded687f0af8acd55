"""Stages that wait for nodes, on clusters that only Ray's listing and its demand name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ray

from distill_core.errors import ClusterError, ConfigError
from tasks.execution import Execution
from tasks.jobs import WorkerMemory, WorkerSpec
from tasks.pools import ray as ray_pools
from tasks.pools import ray_capacity, ray_cluster, ray_growth
from tasks.pools.provider import PoolProvider

SPEC = WorkerSpec("tests.support.fakes:FakeWorker")


class Cluster:
    """Nodes that join at some seconds, and the places that are demanded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, joins: dict[float, list[int]]) -> None:
        self.now, self.joins = 0.0, joins  # GPUs of the nodes that join, by time
        self.demanded: list[dict[str, float]] = []
        self.most_demanded = 0
        monkeypatch.setattr(ray, "nodes", self.nodes)
        monkeypatch.setattr(ray, "cluster_resources", self.total)
        monkeypatch.setattr(ray, "available_resources", self.total)
        monkeypatch.setattr(ray_growth, "placement_group", self._demand)
        monkeypatch.setattr(ray_growth, "remove_placement_group", self.demanded.remove)
        monkeypatch.setattr(ray_capacity.await_room, "__kwdefaults__", {"sleep": self.sleep})
        monkeypatch.setattr(ray_pools, "RayPool", Pool)
        monkeypatch.setattr(ray_cluster, "connected", connected)

    def nodes(self) -> list[dict[str, Any]]:
        """List the nodes as Ray does."""
        counts = [gpus for at, some in self.joins.items() if at <= self.now for gpus in some]
        sizes = [{"CPU": 8.0 * gpus, "GPU": float(gpus), "memory": 64e9} for gpus in counts]
        return [{"Alive": True, "Resources": size} for size in sizes]

    def total(self) -> dict[str, float]:
        """Return the resources of all nodes."""
        return {key: sum(n["Resources"][key] for n in self.nodes()) for key in ("CPU", "GPU")}

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def _demand(self, bundles: list[dict[str, float]]) -> dict[str, float]:
        group = dict(bundles[0])
        self.demanded.append(group)
        self.most_demanded = max(self.most_demanded, len(self.demanded))
        return group


class Pool:
    """Takes the place of actors."""

    def __init__(self, spec: WorkerSpec, *, workers: int, **_: Any) -> None:
        self.spec, self.workers = spec, workers

    def close(self) -> None:
        """Do nothing."""


class Notes:
    """Keeps the notices of stages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def stage_notice(self, stage: str, text: str) -> None:
        """Keep a notice."""
        self.texts.append(text)


@contextmanager
def connected(address: str | None, *, num_cpus: float) -> Iterator[dict[str, str]]:
    """Take the place of a connection."""
    yield {}


def started(workers: Any, *, jobs: int = 20, **settings: Any) -> tuple[Any, Notes]:
    """Start the pool of a stage whose workers take a GPU each; return it, and the notices."""
    placed = {"ray_address": "head:6379", "device": "cuda"} | settings
    notes = Notes()
    with PoolProvider(Execution(store="s", workers=workers, **placed)) as pools:
        return pools.pool(SPEC, jobs=jobs, observer=notes), notes  # type: ignore[arg-type]


def test_a_stage_waits_from_zero_nodes_until_the_least_number_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(monkeypatch, {40.0: [1], 90.0: [2], 500.0: [8]})
    pool, notes = started("2:8")
    assert cluster.now == 90
    assert pool.workers == 8  # those without a place wait for one, which demands it
    assert cluster.most_demanded == 8
    assert cluster.demanded == []  # nothing is demanded any more that could hold a node
    assert "waiting up to 1800 s for nodes: 2 x " in notes.texts[0]
    assert notes.texts[1] == "the cluster has room for 3 of 8 workers; others start later."


def test_a_cluster_that_has_room_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, {0.0: [1, 4]})  # two kinds of nodes
    pool, notes = started("2:8", jobs=3)
    assert (cluster.now, cluster.most_demanded, notes.texts) == (0, 0, [])
    assert pool.workers == 3
    assert started("auto", jobs=4)[0].workers == 4
    assert started(None)[0].workers == 5  # as many as there is room for


def test_nodes_that_do_not_come_end_the_stage_so_that_it_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(monkeypatch, {0.0: [1], 4000.0: [8]})
    with pytest.raises(ClusterError, match=r"2 x .* within 600 s no nodes .* 1 GPUs") as caught:
        started("2:8", wait_for_workers_seconds=600)
    assert caught.value.retryable
    assert cluster.now == 600
    assert cluster.demanded == []


def test_a_number_alone_does_not_expect_nodes_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, {60.0: [8]})
    with pytest.raises(ConfigError, match="0 GPUs on 0 nodes"):
        started(8)
    assert (cluster.now, cluster.most_demanded) == (0, 0)


def test_a_cluster_without_gpus_is_refused_before_the_stages_that_need_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Cluster(monkeypatch, {60.0: [8]})
    on_cpus = WorkerSpec(SPEC.factory, cpu_only=True)
    execution = Execution(
        store="s", ray_address="head:6379", device="cuda", num_cpus=0, num_gpus=1, workers=2
    )
    with PoolProvider(execution) as pools, pytest.raises(ConfigError, match="enough for 0"):
        pools.pool(on_cpus, jobs=3)
    elastic = execution.model_copy(update={"workers": "1:2"})
    with PoolProvider(elastic) as pools:
        assert pools.pool(on_cpus, jobs=3).workers == 2


def test_a_cluster_that_was_lost_and_is_back_is_waited_for_until_its_nodes_are_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(monkeypatch, {0.0: [2]})
    on_cpus = WorkerSpec(SPEC.factory, cpu_only=True)
    with PoolProvider(Execution(store="s", ray_address="head:6379", device="cuda")) as pools:
        assert pools.pool(SPEC, jobs=9).workers == 2
        pools.disconnect()
        cluster.joins = {50.0: [2]}
        assert pools.pool(on_cpus, jobs=99).workers == 2  # as many as are known to have room
        assert cluster.now == 50
        assert pools.pool(SPEC, jobs=9).workers == 2


def test_memory_is_declared_for_the_nodes_that_came(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch, {30.0: [4]})
    execution = Execution(store="s", ray_address="head:6379", device="cuda", workers="4:4")
    memory = WorkerMemory(int(20e9), int(10e9))
    with PoolProvider(execution) as pools:
        pool: Any = pools.pool(WorkerSpec(SPEC.factory, memory=memory), jobs=9)
    assert pool.spec.memory.needed == 16e9  # a quarter of the node's


def test_nodes_with_too_little_memory_are_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, {0.0: [1], 70.0: [8]})
    execution = Execution(store="s", ray_address="head:6379", device="cuda", workers="2:4")
    memory = WorkerMemory(int(60e9), int(30e9))
    with PoolProvider(execution) as pools:
        assert pools.pool(WorkerSpec(SPEC.factory, memory=memory), jobs=9).workers == 4
    assert cluster.now == 70

    cluster.joins = {0.0: [1]}  # without a range no larger node is expected
    fixed = execution.model_copy(update={"workers": 4})
    with PoolProvider(fixed) as pools, pytest.raises(ConfigError, match="GB of memory"):
        pools.pool(WorkerSpec(SPEC.factory, memory=WorkerMemory(int(90e9), int(80e9))), jobs=9)
    assert cluster.now == 70


def test_a_demand_that_takes_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, {})
    with ray_growth.demanded(ray_capacity.Resources(4, num_cpus=0, num_gpus=0)):
        assert cluster.demanded == []
    with ray_growth.demanded(ray_capacity.Resources(500, num_cpus=1, num_gpus=0.5)):
        assert cluster.demanded == [{"CPU": 1, "GPU": 0.5}] * ray_growth.PLACES
    assert cluster.demanded == []
