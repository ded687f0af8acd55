"""A training on a Ray cluster: its node is lost for good, or a second driver starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.pipeline import execute, tiny_run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WAIT_SECONDS = 240
SCRIPT = """
import sys
from distill_core.storage.store import Store
from flows.runs import pipeline
from tasks.execution import Execution
from tasks.run import open_run
from tasks.stages.names import StageId

url, name, address, gpus = sys.argv[1:]
execution = Execution(
    store=url, ray_address=address, workers=1, num_cpus=1, num_gpus=float(gpus)
)
with pipeline.opened(open_run(Store(url), name), execution, {}) as work:
    work.run_stage(StageId("squeeze"))
"""


SIZE = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a cluster with room for the workers of two drivers on its head."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        head = SIZE | {"include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        yield nodes
        nodes.shutdown()


def start_squeeze(run: Run, cluster: Cluster, *, gpus: int = 0) -> subprocess.Popen[bytes]:
    """Start a driver that squeezes with one worker, which needs so many logical GPUs."""
    words = (run.store.url, run.name, cluster.address, str(gpus))
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *words])


def starts_of(run: Run) -> Counter[str]:
    """Return how often a worker began the teacher, by driver."""
    starts: Counter[str] = Counter()
    for name in run.store.names(run.path("events")):
        lines = run.store.read(run.path("events", name)).decode().splitlines()
        events = map(json.loads, lines)
        starts[name.partition("-")[0]] += sum(e["event"] == "job_started" for e in events)
    return +starts


def test_a_driver_started_twice_during_a_squeeze_trains_one_teacher_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path, "squeeze.training.epochs=8")
    execute(run, "ingest")
    shard_store = ShardStore(run.store, "squeeze")
    first = start_squeeze(run, cluster)
    wait_until(lambda: run.store.folders("squeeze/checkpoints"), "the first epoch")
    second = start_squeeze(run, cluster)
    try:
        assert [each.wait(timeout=WAIT_SECONDS) for each in (first, second)] == [0, 0]
    finally:
        first.kill()
        second.kill()
    assert stage_status(run, StageId("squeeze")).complete
    assert sorted(starts_of(run).values()) == [1]
    (key,) = shard_store.done()
    marker = shard_store.marker(key)
    assert marker is not None
    written = {f"squeeze/data/{name}" for name in run.store.names("squeeze/data")}
    assert written == {info.path for info in marker.files}
    left = run.store.folders("squeeze/checkpoints")
    assert not any(run.store.names(f"squeeze/checkpoints/{folder}") for folder in left)


def test_a_training_whose_node_is_lost_for_good_goes_on_from_its_checkpoint_elsewhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path / "lost", "squeeze.training.epochs=8")
    execute(run, "ingest")
    node = cluster.add_node(**SIZE | {"num_gpus": 1})
    driver = start_squeeze(run, cluster, gpus=1)
    try:
        wait_until(lambda: run.store.folders("squeeze/checkpoints"), "the first epoch")
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(**SIZE | {"num_gpus": 1})
        assert driver.wait(timeout=2 * WAIT_SECONDS) == 0
    finally:
        driver.kill()
    assert stage_status(run, StageId("squeeze")).complete
    assert sum(starts_of(run).values()) == 2
    undisturbed = tiny_run(tmp_path / "undisturbed", "squeeze.training.epochs=8")
    execute(undisturbed, "ingest", "squeeze")
    assert weights_of(run) == weights_of(undisturbed)


def weights_of(run: Run) -> list[str]:
    """Return the sha256 of the weights of every teacher."""
    shard_store = ShardStore(run.store, "squeeze")
    markers = [shard_store.marker(key) for key in sorted(shard_store.done())]
    return [marker.file("safetensors").sha256 for marker in markers if marker is not None]
