"""A Ray that is gone: the stage ends with one line, and the next one gets another Ray.

`tests/e2e/test_lost_processes.py` kills a raylet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# The job hangs once only: the second Ray finishes it.
OWN_RAY = """
import sys, tempfile, threading, time, psutil, ray
from distill_core.errors import ClusterError
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.provider import PoolProvider
from tasks.pools.supervision import supervised
from tests.support.fakes import make_jobs
from tests.support.waiting import wait_until

victim, once = sys.argv[1], tempfile.mktemp()
jobs = make_jobs(2, hang=3600.0, once=once)

def kill():
    wait_until(lambda: __import__("os").path.exists(once), "a job that runs")
    ray._private.worker._global_node.all_processes[victim][0].process.kill()

with supervised(), PoolProvider(Execution(store=".", workers=1)) as pools:
    spec = WorkerSpec("tests.support.fakes:FakeWorker")
    pool = pools.pool(spec, jobs=2)
    workers = psutil.Process().children(recursive=True)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        dispatch(jobs, pool)
    except ClusterError as error:
        print(error)
    killer.join()
    print(len(dispatch(jobs, pools.pool(spec, jobs=2)).receipts))
assert not ray.is_initialized()
assert not [process for process in workers if process.is_running()
            and process.status() != psutil.STATUS_ZOMBIE]
"""

# The head is another process, with its own session: nothing here kills it but the test.
JOINED_RAY = """
import os, subprocess, sys, tempfile, threading, time, ray
from distill_core.errors import ClusterError
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools import ray_cluster
from tasks.pools.dispatch import dispatch
from tasks.pools.provider import PoolProvider
from tests.support.fakes import make_jobs
from tests.support.waiting import wait_until

HEAD = '''
import ray, sys
from tasks.pools.ray_cluster import started
with started(num_cpus=2):
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
'''
ray_cluster.AWAY_SECONDS = 3.0
once = tempfile.mktemp()
os.environ["RAY_AUTH_TOKEN"] = token = "0" * 64
head = subprocess.Popen(
    [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
address = head.stdout.readline().strip()
execution = Execution(store=".", workers=1, ray_address=address)

def stop():
    wait_until(lambda: os.path.exists(once), "a job that runs")
    head.stdin.close()
    head.wait()

with PoolProvider(execution) as pools:
    pool = pools.pool(WorkerSpec("tests.support.fakes:FakeWorker"), jobs=2)
    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        dispatch(make_jobs(2, hang=3600.0, once=once), pool)
    except ClusterError as error:
        print(str(error).replace(address, "ADDRESS"))
    stopper.join()
    try:
        pools.pool(WorkerSpec("tests.support.fakes:FakeWorker"), jobs=2)
    except ClusterError as error:
        print(str(error).replace(address, "ADDRESS"))
"""


def run(folder: Path, script: str, *arguments: str) -> list[str]:
    """Run a script to its end without any variable of Ray; return its lines, on both streams."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=clean | {"TMPDIR": str(folder)},  # the log of what was lost is kept there
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def test_a_ray_of_our_own_that_is_killed_is_one_line_and_is_replaced(tmp_path: Path) -> None:
    loss, receipts = run(tmp_path, OWN_RAY, "gcs_server")
    assert loss.startswith("Ray on this machine is gone: its GCS was killed by SIGKILL. Its log ")
    assert receipts == "2"


def test_a_joined_cluster_whose_head_ends_is_one_line(tmp_path: Path) -> None:
    loss, refusal = run(tmp_path, JOINED_RAY)
    assert loss.startswith("The Ray cluster is gone: its ")
    assert refusal.startswith("ray_address=ADDRESS: cannot be reached")
