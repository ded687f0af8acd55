"""A cluster of two nodes, real actors, real SIGKILLs: every kind of fault in one stage.

Each shard of one run has its own fault, and the tests check its outcome. The loss of a whole node
is in tests/tasks/pools/test_node_loss.py.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from distill_core.errors import ClusterError, ConfigError, ShardsFailed
from distill_core.storage.manifest import Manifest
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import RetryPolicy
from tasks.jobs import WorkerSpec
from tasks.pools import ray_cluster
from tasks.pools.dispatch import dispatch
from tasks.pools.host import RECEIPT_BYTES
from tasks.pools.ray import RayPool
from tasks.run import Run
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.fakes import make_jobs
from tests.support.fault_runs import SHARDS, Watch, markers_of, planned_run, recover, start_driver
from tests.support.pipeline import manifest
from tests.support.stand_in import Attempt, Notebook, Orders
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("no_faults")]

NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 * 2**20}
ON_RAY = {"workers": 2, "num_cpus": 0.5, "num_gpus": 0.5}
OVERDUE_SECONDS = 25.0
TROUBLE = {
    "is killed before it begins": ["die before"],
    "is killed before its marker": ["die between"],
    "is killed after its marker": ["die after"],
    "meets a slow disk twice": ["raise OSError"] * 2,
    "fills its device once": ["room 50"] * 9,
    "hangs once": ["hang"],
    "fills any device": ["room 1"] * 9,
    "kills every worker": ["die before"] * 9,
    "is poisoned": ["raise ValueError"] * 9,
    "diverges": ["raise DivergedError"] * 9,
}
SURVIVES = list(TROUBLE)[:6]
FAILS = list(TROUBLE)[6:]


@pytest.fixture(scope="module", autouse=True)
def cluster(notebook: Notebook) -> Iterator[str]:
    """Start two nodes with a logical GPU each, connect, and return the address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        nodes = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        nodes.add_node(**NODE)
        nodes.wait_for_nodes()
        with ray_cluster.connected(nodes.address):
            yield nodes.address
        nodes.shutdown()


@dataclass(frozen=True)
class Outcome:
    """The outcome of the stage; each shard is named by its fault."""

    run: Run
    error: ShardsFailed
    watch: Watch
    attempts: Mapping[str, list[Attempt]]  # by shard
    failed: Mapping[str, dict[str, Any]]  # records, by shard
    shards: Mapping[str, str]  # their names by trouble

    @cached_property
    def markers(self) -> list[Marker]:
        """Return the marker of every shard that is done."""
        return markers_of(ShardStore(self.run.store, "recover"))

    def tries(self, trouble: str) -> list[Attempt]:
        """Return every attempt at a shard."""
        return self.attempts[self.shards[trouble]]

    def record(self, trouble: str) -> dict[str, Any]:
        """Return what is kept of a shard that failed."""
        return self.failed[self.shards[trouble]]

    def reasons(self, trouble: str) -> list[str]:
        """Return why a shard was tried again."""
        return [why for shard, why in self.watch.retried if shard == self.shards[trouble]]


@pytest.fixture(scope="module")
def outcome(
    notebook: Notebook, undisturbed: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """Run a stage in which everything goes wrong, each in a shard of its own.

    One job in flight: a worker that goes takes no neighbour along, so starts can be counted.
    """
    run = planned_run(str(tmp_path_factory.mktemp("troubled")), shards=SHARDS)
    names = [entry.shard for entry in undisturbed.entries]
    shards = dict(zip(TROUBLE, names, strict=False))
    notebook.forget()
    notebook.order(Orders({shards[trouble]: fates for trouble, fates in TROUBLE.items()}))
    watch = Watch()
    with pytest.raises(ShardsFailed) as raised:
        recover(run, watch, **ON_RAY, in_flight=1, job_timeout_seconds=OVERDUE_SECONDS)
    failed = stage_status(run, StageId("recover")).failed
    attempts = notebook.attempts()
    return Outcome(run, raised.value, watch, attempts, failed, shards)


def test_only_shards_that_fail_every_attempt_fail_and_the_error_lists_them(
    outcome: Outcome,
) -> None:
    expected = {outcome.shards[trouble] for trouble in FAILS}
    assert set(outcome.failed) == expected == {shard for shard, _ in outcome.watch.failed}
    assert "4 of the recover shards failed" in str(outcome.error)
    assert all(shard in str(outcome.error) for shard in expected)
    assert len(outcome.watch.finished) == SHARDS - len(FAILS)


def test_shards_that_recover_from_a_fault_have_the_bytes_of_an_undisturbed_run(
    outcome: Outcome, undisturbed: Manifest
) -> None:
    made = Manifest.of("recover", outcome.markers).entries
    expected = [entry for entry in undisturbed.entries if entry.shard not in outcome.failed]
    assert sorted(made, key=lambda entry: entry.shard) == expected


def test_only_a_worker_killed_before_its_marker_leaves_unreferenced_data(
    outcome: Outcome,
) -> None:
    written = {f"recover/data/{name}" for name in outcome.run.store.names("recover/data")}
    named = {info.path: marker.shard for marker in outcome.markers for info in marker.files}
    assert named.keys() <= written
    (orphan,) = written - named.keys()
    (twin,) = (path for path in named if path.partition("-")[0] == orphan.partition("-")[0])
    assert named[twin] == outcome.shards["is killed before its marker"]


@pytest.mark.parametrize("trouble", [name for name in SURVIVES if "killed" in name])
def test_a_killed_actor_costs_its_shard_one_more_start(outcome: Outcome, trouble: str) -> None:
    first, second = outcome.tries(trouble)
    assert first.pid != second.pid
    assert len(outcome.reasons(trouble)) == 1


def test_a_shard_whose_actor_is_killed_after_its_marker_is_reported_once(
    outcome: Outcome,
) -> None:
    name = outcome.shards["is killed after its marker"]
    assert outcome.watch.finished.count(name) == 1
    assert [marker.shard for marker in outcome.markers].count(name) == 1


def test_an_os_error_is_retried(outcome: Outcome) -> None:
    assert len(outcome.tries("meets a slow disk twice")) == 3
    assert outcome.reasons("meets a slow disk twice") == ["OSError: the disk is slow today"] * 2


def test_a_shard_out_of_device_memory_is_made_in_halves(outcome: Outcome) -> None:
    assert [a.split for a in outcome.tries("fills its device once")] == [1, 2]
    (reason,) = outcome.reasons("fills its device once")
    assert reason.startswith("OutOfMemoryError: ")
    assert reason.endswith("CUDA out of memory: 100 images.")


def test_a_shard_out_of_device_memory_in_halves_fails_with_the_setting_to_change(
    outcome: Outcome,
) -> None:
    first, *halved = [a.split for a in outcome.tries("fills any device")]
    assert (first, set(halved)) == (1, {2})
    record = outcome.record("fills any device")
    assert "CUDA out of memory: 50 images. A second attempt" in record["error"]
    assert "--num-gpus" in record["error"]
    assert "torch.OutOfMemoryError" in record["traceback"]


def test_an_overdue_shard_is_killed_and_made_by_another_process(outcome: Outcome) -> None:
    first, second = outcome.tries("hangs once")
    assert first.pid != second.pid
    assert f"ran for more than {OVERDUE_SECONDS:g} s" in outcome.reasons("hangs once")[0]


def test_a_shard_that_kills_every_worker_is_quarantined(outcome: Outcome) -> None:
    assert len(outcome.tries("kills every worker")) == RetryPolicy().max_losses_per_job
    assert "its worker was lost 4 times" in outcome.record("kills every worker")["error"]


def test_a_poisoned_shard_is_quarantined_after_three_attempts_with_its_exception(
    outcome: Outcome,
) -> None:
    assert len(outcome.tries("is poisoned")) == 3
    record = outcome.record("is poisoned")
    assert (record["type"], record["attempts"]) == ("ValueError", 3)
    assert record["error"] == "ValueError: a poisoned shard"
    assert "in suffer" in record["traceback"]


def test_a_shard_that_diverges_is_not_tried_again_and_leaves_nothing(outcome: Outcome) -> None:
    assert len(outcome.tries("diverges")) in (1, 2)  # once on each node that has a worker
    assert outcome.record("diverges")["type"] == "DivergedError"


def test_after_a_repair_only_failed_shards_are_made_and_the_manifest_is_undisturbed(
    outcome: Outcome, undisturbed: Manifest, notebook: Notebook, tmp_path: Path
) -> None:
    shutil.copytree(outcome.run.store.url, tmp_path / "mended")
    run = replace(outcome.run, store=Store(str(tmp_path / "mended")))
    recover(run, **ON_RAY)
    made = {shard: len(tries) for shard, tries in notebook.attempts().items()}
    assert made == dict.fromkeys(outcome.failed, 1)
    assert manifest(run, "recover") == undisturbed
    assert not stage_status(run, StageId("recover")).failed


def test_the_next_driver_keeps_the_finished_shards_of_a_killed_one(
    cluster: str, undisturbed: Manifest, notebook: Notebook, tmp_path: Path
) -> None:
    run = planned_run(str(tmp_path), shards=SHARDS)
    shard_store = ShardStore(run.store, "recover")
    notebook.order(Orders(seconds=0.5))
    driver = start_driver(run, ray_address=cluster, **ON_RAY)
    wait_until(lambda: len(shard_store.done()) >= 3, "three shards")
    driver.kill()
    driver.wait()
    before = {marker.shard: marker.token for marker in markers_of(shard_store)}
    assert 3 <= len(before) < SHARDS
    notebook.forget()
    notebook.order(Orders())
    recover(run, **ON_RAY)
    assert manifest(run, "recover") == undisturbed
    after = {marker.shard: marker.token for marker in markers_of(shard_store)}
    assert before.items() <= after.items()
    assert not before.keys() & notebook.attempts().keys()


def test_a_config_error_is_not_retried_and_is_raised_unchanged(
    undisturbed: Manifest, notebook: Notebook, tmp_path: Path
) -> None:
    run, shard = planned_run(str(tmp_path), shards=SHARDS), undisturbed.entries[3].shard
    notebook.order(Orders({shard: ["raise ConfigError"] * 9}))
    with pytest.raises(ConfigError, match="a poisoned shard"):
        recover(run, **ON_RAY, in_flight=1)
    assert len(notebook.attempts()[shard]) in (1, 2)  # once on each node that has a worker
    assert len(ShardStore(run.store, "recover").done()) == SHARDS - 1


def test_more_gpus_than_any_node_has_are_refused_with_both_numbers(tmp_path: Path) -> None:
    run = planned_run(str(tmp_path), shards=1)
    with pytest.raises(ConfigError) as raised:
        recover(run, workers=1, num_gpus=2)
    assert "1 x num_gpus=2 = 2 GPUs are required" in str(raised.value)
    assert "4 CPUs and 2 GPUs on 2 nodes" in str(raised.value)
    assert "enough for 0" in str(raised.value)


def test_gpus_held_by_others_are_awaited_and_then_named_in_the_error(tmp_path: Path) -> None:
    run = planned_run(str(tmp_path), shards=1)
    other = RayPool(WorkerSpec("tests.support.fakes:FakeWorker"), workers=2, num_cpus=0, num_gpus=1)
    try:
        dispatch(make_jobs(4), other)
        with pytest.raises(ClusterError, match=r"not ready within 3 s .* 0 free\)\)\. Free or add"):
            recover(run, workers=1, num_gpus=1, ready_timeout_seconds=3)
    finally:
        other.close()


def test_a_receipt_stays_small_on_its_way_through_ray() -> None:
    spec = WorkerSpec("tests.support.fakes:Talkative")
    pool = RayPool(spec, workers=1, num_cpus=0, num_gpus=0)
    try:
        (receipt,) = dispatch(make_jobs(1), pool).receipts
    finally:
        pool.close()
    assert len(pickle.dumps(receipt)) < RECEIPT_BYTES
    assert receipt.rows == 5
