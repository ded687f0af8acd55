"""A real PostgreSQL on the loopback, in a folder of its own, by deploy/postgres/server.sh."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import free_port
from tests.support.repository import ROOT

SCRIPT = ROOT / "deploy" / "postgres" / "server.sh"
PROGRAMS = Path("/usr/lib/postgresql")


def is_installed() -> bool:
    """Return whether Debian's package is installed."""
    return any(PROGRAMS.glob("*/bin/postgres"))


@dataclass
class Postgres:
    """A server with one empty database, which can be ended hard and started again."""

    # Not below pytest's folder: as root, the server runs as a user who may not enter it.
    home: Path = field(
        default_factory=lambda: Path(tempfile.gettempdir(), f"distill-pg-{secrets.token_hex(4)}")
    )
    port: int = field(default_factory=free_port)
    variables: dict[str, str] = field(default_factory=dict)  # of Prefect's server

    def start(self) -> None:
        """Start it, with the data that there is; sets the variables of Prefect's server."""
        for line in self._run("start").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.variables[name] = value

    def crash(self) -> None:
        """End it without a checkpoint, as a machine that loses its power."""
        self._run("crash")

    def stop(self) -> None:
        """End it and remove its data."""
        self._run("stop")

    def _run(self, verb: str) -> str:
        environment = os.environ | {
            "DISTILL_POSTGRES_HOME": str(self.home),
            "DISTILL_POSTGRES_PORT": str(self.port),
        }
        done = subprocess.run(
            [SCRIPT, verb], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout
