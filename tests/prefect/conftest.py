"""One server, one work pool, one worker and one store for all tests of this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pipeline import TINY
from tests.support.prefect_server import BIN, FILES, Operator, Server, processes_of, worker
from tests.support.waiting import wait_until

POOL = "distill"
ENDLESS = "recover.steps=100000"  # a heartbeat may get lost; the next comes half a minute later


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of all runs: what one has made, the next one finds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server that wants a password."""
    made = Server(tmp_path_factory.mktemp("prefect"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="package")
def deployed(server: Server, store: Path) -> Operator:
    """Deploy deploy/prefect/prefect.yaml to a work pool without a worker."""
    operator = Operator(server)
    operator.prefect("work-pool", "create", POOL, "--type", "process")
    server.variables.update(DISTILL_STORE=str(store), DISTILL_RAY_ADDRESS="", DISTILL_SUBMIT="")
    operator.prefect("deploy", "--all", "--prefect-file", str(FILES / "prefect.yaml"))
    operator.distill("automations")
    return operator


@pytest.fixture(scope="package")
def killed_run(deployed: Operator, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a flow run whose processes were all killed, so that none could report its end."""
    entrypoint, pool = "flows.orchestration.prefect_flow.distill", "nobodys"
    deployed.prefect("work-pool", "create", pool, "--type", "process")
    file = str(FILES / "prefect.yaml")
    alone = ("--concurrency-limit", "1", "--prefect-file", file)
    deployed.prefect("deploy", entrypoint, "-n", "new-run-silent", "--pool", pool, *alone)
    here = tmp_path_factory.mktemp("silent")
    where = ("--deployment", "silent", "--store", str(here / "store"))
    run = deployed.trigger("digits-demo", *TINY, ENDLESS, *where, "--local")
    command = [BIN / "prefect", "flow-run", "execute", run]
    (room := here / "room").mkdir()
    environment = {**deployed.server.environment, "TMPDIR": str(room)}
    process = subprocess.Popen(command, env=environment, cwd=here)
    try:
        wait_until(lambda: process.poll() is not None or deployed.heartbeats(run), "a heartbeat")
        assert process.poll() is None, f"the run ended by itself: {deployed.state(run)}"
        assert not [*room.glob("prefect-flow-run-*/*")], "the folder it started in was copied"
    finally:
        for one in processes_of(run):
            one.kill()
        process.kill()
    process.wait(30)
    return run


@pytest.fixture(scope="package")
def operator(server: Server, deployed: Operator, killed_run: str) -> Iterator[Operator]:
    """Start a worker for the pool."""
    with worker(server, POOL):
        yield deployed
