"""A run on a cluster that grows from zero nodes with GPUs, loses one, and gets others of two kinds.

The GPUs are Ray's logical ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = """
import subprocess, sys, time
from ray.cluster_utils import Cluster
from distill_core.config.load import load_run
from distill_core.storage.manifest import load_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.runs import pipeline
from flows.status.status import run_activity, run_status
from datetime import UTC, datetime
from tasks.execution import Execution
from tasks.run import create_run

folder = sys.argv[1]
DRIVER = '''
import sys
from distill_core.storage.store import Store
from flows.runs import pipeline
from tasks.execution import Execution
from tasks.run import open_run
store, name, execution = sys.argv[1:]
pipeline.complete_run(open_run(Store(store), name), Execution.model_validate_json(execution))
'''
config = load_run("digits-demo", [
    "ipc=4", "squeeze.model.width=4", "squeeze.training.epochs=1", "recover.ipc_range=1",
    "recover.steps=150", "relabel.views=2", "posttrain.epochs=2", "posttrain.sets=[distilled]",
    "posttrain.students=[{name: resnet18_small, width: 4}]", "posttrain.seeds=[0]",
])
alone = create_run(config, Store(f"{folder}/alone"))
pipeline.complete_run(alone, Execution(store=alone.store.url, local=True))

memory = 100 * 2**20
head = dict(num_cpus=4, num_gpus=0, object_store_memory=memory, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args=head)
run = create_run(config, Store(f"{folder}/elastic"))
execution = Execution(
    store=run.store.url, ray_address=cluster.address, workers="2:6", num_cpus=0, num_gpus=1,
)
shards = ShardStore(run.store, "recover")

def node(gpus, cpus=1):
    return cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=memory)

def until(condition):
    while not condition():
        assert child.poll() is None
        time.sleep(0.1)

log = open(f"{folder}/driver.log", "w+")
child = subprocess.Popen([sys.executable, "-c", DRIVER, run.store.url, run.name,
                          execution.model_dump_json()], stdout=log, stderr=subprocess.STDOUT)
# One job of training needs one worker, whatever the least number is.
until(lambda: "waiting up to 1800 s for nodes: 1 x" in open(log.name).read())
first, second = node(1), node(1)
until(lambda: len(shards.done()) > 0)
cluster.remove_node(second, allow_graceful=False)
assert len(shards.done()) < 4 * 4  # the node was lost while images were recovered
node(1), node(2, cpus=3)  # two kinds
assert child.wait(240) == 0, open(log.name).read()
status = run_status(run)
assert status.complete
for stage in ("squeeze", "recover", "relabel", "posttrain"):
    manifests = [load_manifest(each.store, each.name, stage) for each in (alone, run)]
    rows = [[(e.key, [(s, d) for s, _, d in e.files]) for e in m.entries] for m in manifests]
    same = rows[0] == rows[1] if stage in ("recover", "relabel") else (
        [key for key, _ in rows[0]] == [key for key, _ in rows[1]])
    assert same, (stage, rows)
activity = run_activity(run, status.stages, now=datetime.now(UTC))
busy = activity.stages["recover"].busy
assert busy is not None and 0 < busy <= 1, busy
print(f"busy {busy:.2f}")
cluster.shutdown()
"""


@pytest.mark.timeout(400)
def test_a_run_grows_from_zero_shrinks_and_grows_on_two_kinds_of_nodes_with_equal_results(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=os.environ | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "busy " in done.stdout
