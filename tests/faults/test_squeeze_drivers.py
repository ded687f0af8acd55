"""Two drivers on one Ray cluster: the second leaves a training to the first."""

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

url, name, address = sys.argv[1:]
execution = Execution(store=url, ray_address=address, workers=1, num_cpus=1)
with pipeline.opened(open_run(Store(url), name), execution, {}) as work:
    work.run_stage(StageId("squeeze"))
"""


@pytest.fixture
def address() -> Iterator[str]:
    """Start a cluster with room for the workers of two drivers, and return its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        size = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=size)
        yield nodes.address
        nodes.shutdown()


def starts_of(run: Run) -> Counter[str]:
    """Return how often a worker began the teacher, by driver."""
    starts: Counter[str] = Counter()
    for name in run.store.names(run.path("events")):
        lines = run.store.read(run.path("events", name)).decode().splitlines()
        events = map(json.loads, lines)
        starts[name.partition("-")[0]] += sum(e["event"] == "job_started" for e in events)
    return +starts


def test_a_driver_started_twice_during_a_squeeze_trains_one_teacher_once(
    address: str, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path, "squeeze.training.epochs=8")
    execute(run, "ingest")
    shard_store = ShardStore(run.store, "squeeze")
    command = [sys.executable, "-c", SCRIPT, run.store.url, run.name, address]
    first = subprocess.Popen(command)
    wait_until(lambda: run.store.folders("squeeze/checkpoints"), "the first epoch")
    second = subprocess.Popen(command)
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
