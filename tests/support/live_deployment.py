"""A deployment as deploy/prefect/README.md describes it, with every service on the loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.postgres import Postgres
from tests.support.prefect_server import FILES, Operator, Server, end, start_worker
from tests.support.ray_services import RayServices

POOL = "distill"
NODES = 2


@dataclass
class Deployment:
    """What a platform engineer has set up."""

    database: Postgres
    ray: RayServices
    server: Server
    store: Path
    worker: subprocess.Popen[bytes] | None = None
    operator: Operator = field(init=False)

    def __post_init__(self) -> None:
        """Use its command lines."""
        self.operator = Operator(self.server)

    @property
    def execution(self) -> dict[str, Any]:
        """Return the settings of a run on the cluster; a form's replace the deployment's."""
        return {"ray_address": self.ray.address, "workers": NODES}

    def start_worker(self) -> None:
        """Start a worker for the pool."""
        self.worker = start_worker(self.server, POOL)

    def kill_worker(self) -> None:
        """Kill the worker alone; the flow runs that it started live on."""
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()

    def markers(self, kind: str = "recover") -> set[str]:
        """Return the markers of committed shards."""
        return {path.name for path in (self.store / kind / "_done").glob("*.json")}


@contextmanager
def deployed(folder: Path, **settings: str) -> Iterator[Deployment]:
    """Set everything up in a folder, and take it down after the block.

    Args:
        folder: empty.
        settings: environment variables of Prefect's server.
    """
    with ExitStack() as stack:
        database, ray = Postgres(), RayServices()
        stack.callback(database.stop)
        database.start()
        stack.callback(ray.stop)
        ray.start(NODES)
        (store := folder / "store").mkdir()
        (home := folder / "prefect").mkdir()
        where = {"DISTILL_STORE": str(store), "DISTILL_RAY_ADDRESS": ray.address}
        server = Server(
            home, variables=ray.variables | where, settings=database.variables | settings
        )
        stack.callback(server.stop)
        server.start()
        made = Deployment(database, ray, server, store)
        made.operator.prefect("work-pool", "create", POOL, "--type", "process")
        made.operator.prefect("deploy", "--all", "--prefect-file", str(FILES / "prefect.yaml"))
        ray.wait_ready()
        made.start_worker()
        stack.callback(lambda: made.worker and end(made.worker))
        yield made
