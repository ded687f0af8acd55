"""Two nodes on one machine, one of them killed: its jobs move to the other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = """
import threading, time, tempfile
from ray.cluster_utils import Cluster
import ray
from tasks.pools.dispatch import dispatch
from tasks.jobs import WorkerSpec
from tasks.execution import RetryPolicy
from tasks.pools.events import Lost, Ready
from tasks.pools.ray import RayPool
from tests.support.notes import Notes
from tests.support.fakes import make_jobs

small = dict(num_cpus=1, object_store_memory=100 * 2**20)
cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
other = cluster.add_node(**small)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False, logging_level="error")

class Watched(RayPool):
    events = []

    def wait(self, *arguments):
        events = super().wait(*arguments)
        self.events += events
        return events

pool = Watched(WorkerSpec("tests.support.fakes:FakeWorker"), workers=2, num_cpus=1, num_gpus=0)
notes = Notes()
killed = False

def kill_once_both_work():
    global killed
    while len({*notes.finished}) < 4:
        time.sleep(0.05)
    cluster.remove_node(other, allow_graceful=False)
    killed = True

killer = threading.Thread(target=kill_once_both_work)
killer.start()
policy = RetryPolicy(max_attempts=1)
result = dispatch(make_jobs(30, seconds=1.0), pool, policy=policy, observer=notes)
killer.join()
assert killed
assert len(result.receipts) == 30, result
assert not result.failed
assert 1 <= result.losses <= 2, result.losses
lost = [event for event in pool.events if isinstance(event, Lost)]
assert lost[0].node_lost, lost
assert len({event.node for event in pool.events if isinstance(event, Ready)}) == 2
pool.close()
ray.shutdown()
cluster.shutdown()
print("fine")
"""


def test_the_jobs_of_a_killed_node_move_to_the_other_one() -> None:
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=inherited() | environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("fine\n")


def inherited() -> dict[str, str]:
    """Return this process's environment without what configures Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
