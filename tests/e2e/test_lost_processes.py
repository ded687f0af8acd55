"""Processes that a run depends on are killed in the middle of recover: the run goes on to its end.

`tests/tasks/pools/test_ray_loss.py` has the other ways in which Ray can go.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_core.storage.store import Store
from tests.soak.signals import prepare
from tests.support.prefect_server import Server
from tests.support.stopping import SMALL, Driver, damaged_shards
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with dataset and teacher."""
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def store(prepared: Path, tmp_path: Path) -> Path:
    """Return a copy of that store."""
    return Path(shutil.copytree(prepared, tmp_path / "store"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Start a Prefect server that is not the run's own."""
    (home := tmp_path / "server").mkdir()
    made = Server(home)
    made.start()
    yield made
    made.stop()


def drive(store: Path, **variables: str) -> Driver:
    """Start a run whose recover takes a few seconds."""
    arguments = ("recover.steps=40", "ipc=4", "--store", str(store), "--workers", "2")
    variables["TMPDIR"] = str(store.parent)  # the logs of what was lost are kept there
    return Driver(["run", *SMALL, *arguments], store.parent / "home", **variables)


def follow_to_recover(driver: Driver, store: Path) -> None:
    """Wait until a first shard of recover is committed."""
    done = store / "recover" / "_done"
    driver.follow(lambda: done.is_dir() and any(done.glob("*.json")))
    assert driver.process.poll() is None, driver.output()


def assert_finished(driver: Driver, store: Path) -> list[str]:
    """Wait for the end of the run, which must be a good one; return what it printed."""
    wait_until(lambda: driver.process.poll() is not None, "the end of the run")
    assert driver.process.returncode == 0, driver.output()
    wait_until(lambda: not driver.living(), "the end of its processes", 60)
    assert damaged_shards(Store(str(store))) == []
    return driver.output().splitlines()


def test_a_run_whose_raylet_and_prefect_server_are_killed_goes_on_to_its_end(store: Path) -> None:
    driver = drive(store)
    try:
        follow_to_recover(driver, store)
        for sign in ("/raylet/raylet", "uvicorn"):
            (victim, *_) = [p for p in driver.living() if sign in driver.family[p]]
            victim.kill()
        lines = assert_finished(driver, store)
    finally:
        driver.kill()
    ours = ("ingest:", "squeeze:", "recover:", "relabel:", "posttrain:", "distill: warning:")
    table = next(number for number, line in enumerate(lines) if line.startswith(SMALL[0]))
    assert [line for line in lines[:table] if not line.startswith(ours)] == []
    ray, prefect = sorted(line for line in lines if line.startswith("distill: warning:"))[::-1]
    assert "Ray on this machine is gone: its raylet was killed by SIGKILL" in ray
    assert "Prefect's temporary server has ended (SIGKILL). It is started again" in prefect


def test_a_run_outlives_a_prefect_server_of_others_that_goes_away(
    store: Path, server: Server
) -> None:
    driver = drive(
        store,
        PREFECT_API_URL=server.url,
        PREFECT_API_AUTH_STRING=server.secret,
        PREFECT_CLIENT_MAX_RETRIES="2",  # at the end of the flow run
    )
    try:
        follow_to_recover(driver, store)
        server.kill()
        lines = assert_finished(driver, store)
    finally:
        driver.kill()
    (warning,) = [line for line in lines if line.startswith("distill: warning:")]
    assert "Prefect's server does not answer any more. Every stage is complete" in warning
    assert "Traceback" not in driver.output()
