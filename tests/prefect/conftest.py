"""One server, one work pool, one worker and one store for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prefect.server import ROOT, Operator, Server, worker

POOL = "distill"


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
    os.environ.update(DISTILL_STORE=str(store), DISTILL_RAY_ADDRESS="")
    file = ROOT / "deploy" / "prefect" / "prefect.yaml"
    operator.prefect("deploy", "--all", "--prefect-file", str(file))
    return operator


@pytest.fixture(scope="package")
def operator(server: Server, deployed: Operator) -> Iterator[Operator]:
    """Start a worker for the pool."""
    with worker(server, POOL):
        yield deployed
