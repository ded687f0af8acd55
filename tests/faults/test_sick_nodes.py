"""A cluster with a node that is sick or goes for good, and a store that is away for a while.

The nodes are Ray nodes of this machine with a logical GPU each. They differ by the environment of
their raylet: the sick one has other credentials and another home folder.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from distill_core.storage.manifest import Manifest
from distill_core.storage.shard_store import ShardStore
from tasks.execution import Execution
from tasks.pools import ray_cluster
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.fault_kinds import error
from tests.support.fault_proxy import FaultProxy, Rule
from tests.support.fault_runs import SHARDS, Watch, markers_of, planned_run, recover
from tests.support.pipeline import manifest
from tests.support.s3_fixtures import s3_bucket, unique_name
from tests.support.stand_in import NODE, Notebook, Orders
from tests.support.waiting import wait_until

__all__ = ["s3_bucket"]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_faults"),
]

SIZE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 * 2**20}
ON_RAY = {"workers": 2, "num_cpus": 0.5, "num_gpus": 1}  # one worker on each node
AWAY_SECONDS = 40.0  # by then, every job would have used up its attempts several times
SICK = {NODE: "sick", "AWS_ACCESS_KEY_ID": "EXPIRED", "HOME": "/nonexistent"}


@pytest.fixture(scope="module", autouse=True)
def cluster(
    notebook: Notebook, s3_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Start a head and two nodes, of which one is sick, and connect."""
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("HOME", str(home))
        head = SIZE | {"num_gpus": 0, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(**SIZE, env_vars={NODE: "well"})
        nodes.add_node(**SIZE, env_vars=SICK)
        nodes.wait_for_nodes()
        with ray_cluster.connected(nodes.address):
            yield nodes
        nodes.shutdown()


@contextmanager
def proxied(*rules: Rule) -> Iterator[FaultProxy]:
    """Reach the store through a proxy, from here and from actors that start in the block."""
    upstream = os.environ["AWS_ENDPOINT_URL"]
    with pytest.MonkeyPatch.context() as patch, FaultProxy(upstream, rules) as proxy:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def nodes_of(notebook: Notebook) -> dict[str, set[str]]:
    """Return the nodes on which each shard was begun."""
    return {shard: {a.node for a in tries} for shard, tries in notebook.attempts().items()}


def hold_undisturbed(watch: Watch, run_manifest: Manifest, undisturbed: Manifest) -> None:
    """Check that a stage is complete, and that no shard was made twice."""
    assert run_manifest == undisturbed
    assert not watch.failed
    assert sorted(watch.finished) == sorted(entry.shard for entry in undisturbed.entries)


def test_a_node_with_wrong_credentials_costs_what_it_was_doing(
    notebook: Notebook, undisturbed: Manifest, s3_bucket: str
) -> None:
    notebook.order(Orders(seconds=0.5))
    refused = Rule(error("InvalidAccessKeyId", 403), access_key="EXPIRED", times=None)
    with proxied(refused) as proxy:
        run = planned_run(f"{s3_bucket}/{unique_name()}", shards=SHARDS)
        watch = recover(run, **ON_RAY)
        hold_undisturbed(watch, manifest(run, "recover"), undisturbed)
    assert any(seen.fault == "InvalidAccessKeyId" for seen in proxy.requests)
    assert all("well" in nodes for nodes in nodes_of(notebook).values())
    assert any("InvalidAccessKeyId" in text for _, text in watch.notices)


def test_a_node_without_the_data_folder_costs_what_it_was_doing(
    notebook: Notebook, undisturbed: Manifest, tmp_path: Path
) -> None:
    notebook.order(Orders(seconds=0.5, data="~/data"))
    run = planned_run(str(tmp_path), shards=SHARDS)
    watch = recover(run, **ON_RAY)
    hold_undisturbed(watch, manifest(run, "recover"), undisturbed)
    assert "sick" in set.union(*nodes_of(notebook).values())
    assert all("well" in nodes for nodes in nodes_of(notebook).values())
    assert any("~/data: no such folder" in text for _, text in watch.notices)


def test_a_store_that_is_away_for_a_while_costs_no_shard(
    notebook: Notebook, undisturbed: Manifest, s3_bucket: str
) -> None:
    """Clients give up at once on this error, so that workers and the driver do the waiting."""
    notebook.order(Orders(seconds=0.5))
    with proxied() as proxy:
        run = planned_run(f"{s3_bucket}/{unique_name()}", shards=SHARDS)
        shard_store, before = ShardStore(run.store, "recover"), set[str]()

        def go_away() -> None:
            wait_until(lambda: len(shard_store.done()) >= 2, "two shards")
            before.update(marker.token for marker in markers_of(shard_store))
            with proxy.outage(error("OperationAborted", 409)):
                proxy.closed.wait(AWAY_SECONDS)

        outage = threading.Thread(target=go_away)
        outage.start()
        watch = recover(run, **ON_RAY)
        outage.join()
        hold_undisturbed(watch, manifest(run, "recover"), undisturbed)
        assert before <= {marker.token for marker in markers_of(shard_store)}
    assert any(seen.fault == "OperationAborted" for seen in proxy.requests)
    assert any("Waiting" in text for _, text in watch.notices)


def test_a_node_that_is_lost_for_good_costs_what_it_was_doing(
    notebook: Notebook,
    undisturbed: Manifest,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No loss of a worker is allowed: that of a node is none, nor is a place that stays empty."""
    policy = Execution.policy
    monkeypatch.setattr(Execution, "policy", lambda e: replace(policy(e), losses_per_worker=0))
    notebook.order(Orders(seconds=8.0))
    run, watch = planned_run(str(tmp_path), shards=2), Watch()

    def lose_node() -> None:
        wait_until(lambda: len(watch.started) == 2, "both workers at work")
        wait_until(lambda: len(notebook.attempts()) == 2, "both attempts")
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    loss = threading.Thread(target=lose_node)
    loss.start()
    recover(run, watch, **ON_RAY, in_flight=1)
    loss.join()
    assert stage_status(run, StageId("recover")).complete
    assert sorted(watch.finished) == sorted(entry.shard for entry in undisturbed.entries[:2])
    begun = sorted(len(tries) for tries in notebook.attempts().values())
    assert begun == [1, 2], "only the shard of the lost node was begun again"
