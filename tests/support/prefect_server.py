"""A real Prefect server and a real process worker on the loopback, as an operator starts them."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows import cli
from flows.orchestration.deployments import deployment_name
from tests.support.ports import free_port
from tests.support.repository import ROOT
from tests.support.waiting import wait_until

FILES = ROOT / "deploy" / "prefect"
BIN = Path(sys.executable).parent
PATIENCE = 30  # seconds, with a server that says it is busy
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
QUICK = {  # the same services as always, asked more often
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


@dataclass
class Server:
    """A server with its own database and password, which can be stopped and started again."""

    home: Path
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None
    variables: dict[str, str] = field(default_factory=dict)  # more of them, for its clients
    settings: dict[str, str] = field(default_factory=dict)  # of the server alone; "": not set

    @property
    def url(self) -> str:
        """Return the address of its API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def log(self) -> Path:
        """Return the path of its log."""
        return self.home / "server.log"

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the environment of a client, without settings of other servers."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        return {
            **clean,
            **QUICK,
            **self.variables,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": f"distill:{self.password}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port"]
        own = {"PREFECT_SERVER_API_AUTH_STRING": self.secret, "PREFECT_UI_API_URL": self.url}
        given = {**self.environment, **own, **self.settings}
        environment = {name: value for name, value in given.items() if value}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(self.port)], env=environment, stdout=log, stderr=log
            )
        wait_until(self._answers, "the server")

    def stop(self) -> None:
        """Stop it; its database stays."""
        if self.process is not None:
            end(self.process)
        self.process = None

    def kill(self) -> None:
        """Kill it and its services, so that none can finish what it is doing."""
        assert self.process is not None
        for process in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
            process.kill()
        self.process.wait()
        self.process = None

    @property
    def secret(self) -> str:
        """Return user and password, as Prefect wants them."""
        return f"distill:{self.password}"

    def get(self, path: str) -> Any:
        """Read from the API."""
        return self._ask("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """Send to the API."""
        return self._ask("POST", path, json=body)

    def patch(self, path: str, body: Any) -> None:
        """Send a change to the API."""
        self._ask("PATCH", path, json=body)

    def request(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Ask the API, and again while it reports that it is busy.

        Its SQLite is locked for moments, which it answers with 503. Prefect's own client asks
        again as well.
        """
        auth = ("distill", self.password)
        for _ in range(PATIENCE):
            answer = httpx.request(method, f"{self.url}{path}", auth=auth, timeout=30, **body)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        return answer

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        answer = self.request(method, path, **body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


class Operator:
    """Uses the command lines of Prefect and of distill against a server, as people do."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def prefect(self, *arguments: str) -> str:
        """Run Prefect's command line; it must succeed."""
        done = self._run([str(BIN / "prefect"), "--no-prompt", *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def distill(self, *arguments: str, code: int = 0) -> str:
        """Run our command line in this process; return what it prints, or its complaint."""
        out, err = self.output(*arguments, code=code)
        return err if code else out

    def output(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run our command line in this process; return what it prints on stdout and on stderr."""
        out, err = io.StringIO(), io.StringIO()
        with self.settings(), redirect_stdout(out), redirect_stderr(err):
            said = _exit_code_of(["distill", *arguments])
        assert said == code, out.getvalue() + err.getvalue()
        return out.getvalue(), err.getvalue()

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Let Prefect's clients in this process use the server, for a block."""
        from prefect.settings import (
            PREFECT_API_AUTH_STRING,
            PREFECT_API_URL,
            PREFECT_HOME,
            temporary_settings,
        )

        settings = {
            PREFECT_HOME: self.server.home,
            PREFECT_API_URL: self.server.url,
            PREFECT_API_AUTH_STRING: self.server.secret,
        }
        with temporary_settings(settings):
            yield

    def ask(self, flow: str, **parameters: Any) -> httpx.Response:
        """Post a form, as Prefect's page does."""
        found = self.server.get(f"/deployments/name/{flow}/{deployment_name(flow, None)}")
        path = f"/deployments/{found['id']}/create_flow_run"
        return self.server.request("POST", path, json={"parameters": parameters})

    def trigger(self, *arguments: str) -> str:
        """Trigger a run and return the flow run's id."""
        return str(json.loads(self.distill("trigger", *arguments, "--json"))["id"])

    def state(self, run: str) -> dict[str, Any]:
        """Return the state of a flow run."""
        found: dict[str, Any] = self.server.get(f"/flow_runs/{run}")["state"]
        return found

    def end_of(self, run: str) -> dict[str, Any]:
        """Wait until a flow run has ended and return its last state."""
        return wait_until(
            lambda: state if (state := self.state(run))["type"] in FINAL else None,
            f"the end of {run}",
        )

    def deployments(self, flow: str) -> list[str]:
        """Return the names of a flow's deployments."""
        wanted = {"flows": {"name": {"any_": [flow]}}}
        return [found["name"] for found in self.server.post("/deployments/filter", wanted)]

    def heartbeats(self, run: str) -> int:
        """Return the number of heartbeats of a flow run."""
        wanted = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run}"]},
        }
        return int(self.server.post("/events/filter", {"filter": wanted})["total"])

    def cancel(self, run: str) -> None:
        """Cancel a flow run, as the button of Prefect's page does."""
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        self.server.post(f"/flow_runs/{run}/set_state", state)

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.server.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=ROOT,
        )


def _exit_code_of(arguments: list[str]) -> int:
    before, sys.argv = sys.argv, arguments
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def start_worker(server: Server, pool: str) -> subprocess.Popen[bytes]:
    """Start a process worker."""
    command = [BIN / "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    with (server.home / "worker.log").open("ab") as log:
        return subprocess.Popen(
            command, env=server.environment, stdout=log, stderr=log, cwd=server.home
        )


@contextmanager
def worker(server: Server, pool: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process worker for a block."""
    process = start_worker(server, pool)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], seconds: float = 15) -> None:
    """End a process that was started here; politely, then for certain."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(seconds)
    for child in family:
        if child.is_running():
            child.kill()


def processes_of(run: str) -> list[psutil.Process]:
    """Return the living processes of a flow run: what they do goes on under its id."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("PREFECT__FLOW_RUN_ID") == run
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
