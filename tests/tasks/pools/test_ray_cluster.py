"""Starting and joining Ray, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distill_core.errors import ClusterError, ConfigError
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools import ray_cluster
from tasks.pools.provider import PoolProvider

pytestmark = pytest.mark.cluster

STARTS_AND_STOPS = """
import os, ray
from tasks.pools.dispatch import dispatch
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools import ray_cluster
from tasks.pools.provider import PoolProvider
from tests.support.fakes import make_jobs

before = dict(os.environ)
for _ in range(2):  # a second start must not trip over the first one's token
    with PoolProvider(Execution(store=".", workers=5)) as pools:
        assert not ray.is_initialized()
        pool = pools.pool(WorkerSpec("tests.support.fakes:FakeWorker"), jobs=3)
        assert pool.workers == 3
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(dispatch(make_jobs(3), pool).receipts) == 3
    assert not ray.is_initialized()
    assert {k: v for k, v in os.environ.items() if "RAY" in k} == {
        k: v for k, v in before.items() if "RAY" in k
    }
print("fine")
"""


JOINS_WITH_A_WRONG_TOKEN = """
import os, subprocess, sys, ray
from tasks.pools import ray_cluster

JOIN = "import sys; from tasks.pools import ray_cluster as r; r.connected(sys.argv[1]).__enter__()"
with ray_cluster.started(num_cpus=1):
    address = ray.get_runtime_context().gcs_address
    ours = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    joining = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, address],
            env=ours | token, stderr=subprocess.PIPE, text=True,
        )
        for token in ({}, {"RAY_AUTH_TOKEN": "0" * 64})
    ]
    for one in joining:
        print(one.communicate()[1].splitlines()[-1].partition(address + ": ")[2])
"""


# While Ray starts, its own handler of SIGTERM is in place, which aborts the process 3 s later.
IS_SIGNALLED_WHILE_RAYS_HANDLER_IS_IN_PLACE = """
import os, signal, time, ray
from tasks.pools.signals import terminable
with terminable(60):
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, object_store_memory=128 * 2**20,
        log_to_driver=False, logging_level="error",
    )
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    finally:
        time.sleep(5)
        ray.shutdown()
"""


@pytest.fixture
def no_ray_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the Ray of other tests: one that runs is used, whatever the address."""
    monkeypatch.setattr("tasks.pools.ray_cluster.ray.is_initialized", lambda: False)


def run(script: str, *, code: int = 0) -> str:
    """Run a script without any variable that configures Ray; it must end with the exit code."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_ray_starts_on_first_use_and_stops_with_the_provider() -> None:
    assert run(STARTS_AND_STOPS).endswith("fine\n")


@pytest.mark.slow
def test_a_signal_while_ray_starts_does_not_abort_the_process() -> None:
    run(IS_SIGNALLED_WHILE_RAYS_HANDLER_IS_IN_PLACE, code=143)


@pytest.mark.slow
def test_a_rejected_cluster_token_gives_an_error_that_names_the_setting() -> None:
    without, wrong = run(JOINS_WITH_A_WRONG_TOKEN).splitlines()
    for said in (without, wrong):
        assert "Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token" in said
    assert without.startswith("the cluster refuses access; no token is set here.")
    assert wrong.startswith("the cluster refuses access; the token set here is refused.")


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.usefixtures("no_ray_yet")
def test_an_unreachable_cluster_gives_an_error_that_names_the_address(scheme: str) -> None:
    with (
        pytest.raises(ClusterError, match=f"^ray_address={scheme}127.0.0.1:1: cannot be reached"),
        PoolProvider(Execution(store=".", ray_address=f"{scheme}127.0.0.1:1")) as pools,
    ):
        pools.pool(WorkerSpec("tests.support.fakes:FakeWorker"), jobs=3)


@pytest.mark.usefixtures("no_ray_yet")
def test_an_address_without_a_port_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="expected host:port"),
        PoolProvider(Execution(store=".", ray_address="head")) as pools,
    ):
        pools.pool(WorkerSpec("tests.support.fakes:FakeWorker"), jobs=3)


def test_a_ray_that_starts_too_slowly_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def time_out(**settings: object) -> None:
        raise Exception("The current node timed out during startup. Some raylet failed.")

    ended: list[None] = []  # in place of a Ray of other tests, which must live on
    monkeypatch.setattr(ray_cluster.ray, "init", time_out)
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: ended.append(None))
    expected = r"^a local Ray cluster: cannot be reached or started: The current node .* busy"
    with pytest.raises(ClusterError, match=expected), ray_cluster.started(num_cpus=1):
        pass
    assert len(ended) == 1
