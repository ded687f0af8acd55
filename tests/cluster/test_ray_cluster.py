"""Starting and joining Ray; what starts it runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distill_core.errors import ClusterError, ConfigError
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools import PoolProvider

pytestmark = pytest.mark.cluster

STARTS_AND_STOPS = """
import os, ray
from tasks.dispatch import dispatch
from tasks.execution import Execution
from tasks.jobs import WorkerSpec
from tasks.pools import PoolProvider
from tests.fakes import make_jobs

before = dict(os.environ)
for _ in range(2):  # a second start must not trip over the first one's token
    with PoolProvider(Execution(store=".", workers=5)) as pools:
        assert not ray.is_initialized()
        pool = pools.pool(WorkerSpec("tests.fakes:FakeWorker"), jobs=3)
        assert pool.workers == 3
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(dispatch(make_jobs(3), pool).receipts) == 3
    assert not ray.is_initialized()
    assert {k: v for k, v in os.environ.items() if "RAY" in k} == {
        k: v for k, v in before.items() if "RAY" in k
    }
print("fine")
"""


@pytest.fixture
def no_ray_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the Ray of other tests: one that runs is used, whatever the address."""
    monkeypatch.setattr("tasks.ray_cluster.ray.is_initialized", lambda: False)


def run(script: str) -> str:
    """Run a script without any variable that configures Ray."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ray_starts_on_first_use_and_stops_with_the_provider() -> None:
    assert run(STARTS_AND_STOPS).endswith("fine\n")


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.usefixtures("no_ray_yet")
def test_a_cluster_that_is_not_there_is_an_error_that_names_the_address(scheme: str) -> None:
    with (
        pytest.raises(ClusterError, match=f"^ray_address={scheme}127.0.0.1:1: cannot be reached"),
        PoolProvider(Execution(store=".", ray_address=f"{scheme}127.0.0.1:1")) as pools,
    ):
        pools.pool(WorkerSpec("tests.fakes:FakeWorker"), jobs=3)


@pytest.mark.usefixtures("no_ray_yet")
def test_an_address_without_a_port_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="expected host:port"),
        PoolProvider(Execution(store=".", ray_address="head")) as pools,
    ):
        pools.pool(WorkerSpec("tests.fakes:FakeWorker"), jobs=3)
