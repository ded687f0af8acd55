"""Pictures of Prefect's page with a finished, a running, a queued and a failed run.

python -m tests.deployment.pictures FOLDER     # needs Debian's chromium
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.pipeline import TINY
from tests.support.prefect_server import FILES, Operator, Server, worker
from tests.support.waiting import wait_until

POOL = "distill"
SMALL = (*TINY, 'posttrain.sets=["distilled"]')
BROWSER = (
    "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but the server
    "--virtual-time-budget=60000",
)  # fmt: skip
PAGES = {  # by name of the picture; a run stands for its flow run
    "runs": "/runs",
    "finished": "/runs/flow-run/{finished}",
    "finished-artifacts": "/runs/flow-run/{finished}?tab=Artifacts",
    "refused": "/runs/flow-run/{refused}",
    "failed": "/runs/flow-run/{failed}",
    "running": "/runs/flow-run/{running}",
    "running-artifacts": "/runs/flow-run/{running}?tab=Artifacts",
    "queued": "/runs/flow-run/{queued}",
    "report": "/artifacts/key/weekly-finished-report",
    "accuracy": "/artifacts/key/weekly-finished-accuracy",
}


def take(server: Server, page: str, path: Path) -> None:
    """Take a picture of a page."""
    address = f"{server.url.removesuffix('/api')}{page}"
    shot = (f"--screenshot={path}", "--window-size=1400,1000", address)
    subprocess.run([*BROWSER, *shot], check=True, stderr=subprocess.DEVNULL, timeout=300)


def runs(operator: Operator) -> dict[str, str]:
    """Bring about a run in each state; return the flow runs by state."""

    def trigger(name: str, *changes: str) -> str:
        return operator.trigger("digits-demo", *SMALL, *changes, "--name", name, "--local")

    made = {"finished": trigger("weekly-finished")}
    operator.end_of(made["finished"])
    made["refused"] = trigger("weekly-finished", "recover.steps=5")  # another config
    operator.end_of(made["refused"])
    made["failed"] = trigger("weekly-failed", "squeeze.training.optimizer.lr=1e30")
    operator.end_of(made["failed"])
    made["running"] = trigger("weekly-running", "ipc=8", "recover.steps=3000")
    progress = {"artifacts": {"key": {"any_": ["weekly-running-recover"]}}}
    wait_until(lambda: operator.server.post("/artifacts/filter", progress), "its progress")
    made["queued"] = trigger("weekly-queued", "recover.steps=7")
    wait_until(lambda: operator.state(made["queued"])["name"] != "Scheduled", "the queued run")
    return made


def main(folder: Path) -> None:
    """Serve the deployments and write the pictures to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        (home := Path(name, "prefect")).mkdir()
        (store := Path(name, "store")).mkdir()
        where = {"DISTILL_STORE": str(store), "DISTILL_RAY_ADDRESS": ""}
        # A browser without anybody at it cannot enter a password.
        open_to_all = {"PREFECT_SERVER_API_AUTH_STRING": ""}
        server = Server(home, variables=where, settings=open_to_all)
        operator = Operator(server)
        try:
            server.start()
            operator.prefect("work-pool", "create", POOL, "--type", "process")
            operator.prefect("deploy", "--all", "--prefect-file", str(FILES / "prefect.yaml"))
            with worker(server, POOL):
                made = runs(operator)
                for picture, page in PAGES.items():
                    take(server, page.format(**made), folder / f"{picture}.png")
        finally:
            server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
