"""A Prefect server for one command, which ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.logging.handlers import APILogHandler
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_core.errors import ClusterError
from tasks.pools.supervision import marked, supervised


@contextmanager
def temporary_server(startup_seconds: int) -> Iterator[None]:
    """Start a server and connect flows to it; it stops with the block.

    Args:
        startup_seconds: that the server may take to answer.

    Raises:
        ClusterError: the server did not start.
    """
    log = Path(tempfile.gettempdir()) / f"distill-prefect-{os.getpid()}.log"
    server = _Server(log)
    with supervised():
        try:
            _start(server, log, startup_seconds)
            with temporary_settings({PREFECT_API_URL: server.api_url}):
                try:
                    yield
                finally:
                    APILogHandler().flush()  # while the server still runs
                    log.unlink(missing_ok=True)
        finally:
            server.stop()


class _Server(SubprocessASGIServer):
    """A server whose standard error goes to a log, and which Ctrl-C in a terminal does not reach.

    A terminal sends Ctrl-C to all processes at once, but the server has to record how the flow run
    ended.
    """

    def __new__(cls, log: Path) -> _Server:
        return super().__new__(cls)

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        with _interrupts_held(), _stderr_into(self._log), marked():
            # Set here, so that an interrupt which was held back finds a process to stop.
            self.server_process = super()._run_uvicorn_command()
        return self.server_process


def _start(server: _Server, log: Path, seconds: int) -> None:
    try:
        server.start(timeout=seconds)
    except RuntimeError as error:
        raise ClusterError(
            f"Prefect: the temporary server did not start ({error}). Read {log}, check the usual "
            "causes with `distill doctor`, or run without Prefect with --local."
        ) from None
    except BaseException:  # an interrupt: a server that is still starting would stop too slowly
        if server.server_process is not None:
            server.server_process.kill()
        log.unlink(missing_ok=True)
        raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block Ctrl-C, here and for good in children that are started meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _stderr_into(path: Path) -> Iterator[None]:
    """Send file descriptor 2 of this process, and of children started meanwhile, to a file."""
    saved = os.dup(2)
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
