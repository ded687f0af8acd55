"""A Ray head and worker nodes as an operator starts them: `ray start`, with a token."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.ports import free_port, free_ports
from tests.support.prefect_server import end
from tests.support.waiting import wait_until

RAY = Path(sys.executable).parent / "ray"
HOST = "127.0.0.1"
OBJECT_STORE_BYTES = 128 * 2**20
STARTED = "Ray runtime started"
OF_A_NODE = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")  # whatever drivers do


@dataclass
class RayServices:
    """A head without CPUs, and nodes with one each."""

    port: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)  # the head is the first
    _commands: list[tuple[str, ...]] = field(default_factory=list)
    # Paths of sockets below it have at most 107 characters.
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dray-")))

    @property
    def address(self) -> str:
        """Return the address that drivers join."""
        return f"{HOST}:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment of a driver that may join."""
        return {"RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}

    def start(self, nodes: int) -> None:
        """Start the head and a number of nodes; `wait_ready` waits for them."""
        client, dashboard, agent = map(str, free_ports(3))
        head = (
            "--head", "--port", str(self.port), "--num-cpus", "0", "--temp-dir", str(self.folder),
            "--ray-client-server-port", client, "--include-dashboard", "false",
            "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent,
        )  # fmt: skip
        self._commands = [head]
        for _ in range(nodes):
            agent = str(free_port())
            join = ("--address", self.address, "--num-cpus", "1")
            self._commands.append((*join, "--dashboard-agent-listen-port", agent))
        self.nodes = [self._start_node(*head)]
        wait_until(self._listens, "the Ray head")
        self.nodes += [self._start_node(*node) for node in self._commands[1:]]

    def wait_ready(self) -> None:
        """Wait until every node has started; on a busy machine, Ray gives up after 30 s."""

        def started() -> bool:
            for number, node in enumerate(self.nodes):
                if node.poll() is not None:
                    self.nodes[number] = self._start_node(*self._commands[number])
            return self._log.read_text().count(STARTED) >= len(self.nodes)

        wait_until(started, "the Ray nodes")

    def stop(self) -> None:
        """End every node, the head last, and remove their folder."""
        for node in reversed(self.nodes):
            end(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def actors(self) -> list[psutil.Process]:
        """Return the processes of the cluster that belong to a driver."""
        found = []
        for node in self.nodes:
            for process in psutil.Process(node.pid).children(recursive=True):
                title = _title(process)
                if title.startswith("ray::") and not title.startswith(OF_A_NODE):
                    found.append(process)
        return found

    @property
    def _log(self) -> Path:
        return self.folder / "ray.log"

    def _start_node(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | self.variables | {"RAY_AUTH_MODE": "token"}
        command = [
            RAY, "start", "--block", "--node-ip-address", HOST, *arguments, "--num-gpus", "0",
            "--object-store-memory", str(OBJECT_STORE_BYTES), "--disable-usage-stats",
            "--min-worker-port", "0", "--max-worker-port", "0",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def _listens(self) -> bool:
        assert self.nodes[0].poll() is None, self._log.read_text()
        with socket.socket() as attempt:
            return attempt.connect_ex((HOST, self.port)) == 0


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
