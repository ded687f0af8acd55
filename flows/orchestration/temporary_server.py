"""A Prefect server for one command, which ends with it, and is replaced once if it ends before."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from distill_core.errors import ClusterError
from flows import terminal
from flows.orchestration.delivery import PrefectLog, delivering
from tasks.pools.supervision import marked, supervised

WATCH_SECONDS = 0.5
FAILED = 3  # exit code of a server that cannot start, for a taken port or any other reason
ATTEMPTS = 2  # Prefect takes every failure for a taken port, and would try until the time is up


@contextmanager
def temporary_server(startup_seconds: int, log: PrefectLog) -> Iterator[None]:
    """Start a server and connect flows to it; it stops with the block.

    Args:
        startup_seconds: that the server may take to answer.
        log: receives its standard error.

    Raises:
        ClusterError: the server did not start, or has no place for its database.
    """
    _check_home(PREFECT_HOME.value())
    server = _Server(log.path)
    with supervised():
        try:
            _start(server, log, startup_seconds)
            with (
                temporary_settings({PREFECT_API_URL: server.api_url}),
                _replacing(server, log),
                delivering(),
            ):
                yield
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
        self._failures = 0

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        if self.server_process is not None and self.server_process.poll() == FAILED:
            self._failures += 1
            if self._failures == ATTEMPTS:
                raise RuntimeError(f"its process ended with exit code {FAILED}, {ATTEMPTS} times")
        with _interrupts_held(), _stderr_into(self._log), marked():
            # Set here, so that an interrupt which was held back finds a process to stop.
            self.server_process = super()._run_uvicorn_command()
        return self.server_process

    def ending(self) -> str | None:
        """Return how the process has ended, or None while it runs."""
        code = None if self.server_process is None else self.server_process.poll()
        if code is None:
            return None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def replace(self) -> None:
        """Start another process on the same port and the same database."""
        self._run_uvicorn_command()


@contextmanager
def _replacing(server: _Server, log: PrefectLog) -> Iterator[None]:
    """Replace the process of the server once if it ends during the block.

    Meanwhile Prefect's client repeats its requests. Without a server, a run goes on, but its end
    is not recorded in Prefect.
    """
    stopping = threading.Event()

    def has_ended(then: str) -> bool:
        """Wait until the server ends, and report what is done then; False: the block ends."""
        while (ending := server.ending()) is None:
            if stopping.wait(WATCH_SECONDS):
                return False
        log.keep = True
        terminal.warn(
            f"Prefect's temporary server has ended ({ending}). {then}; the stages are not "
            f"affected. Its log is in {log.path}."
        )
        return True

    def watch() -> None:
        if not has_ended("It is started again"):
            return
        try:
            server.replace()
        except OSError as error:  # no memory or no process is left
            terminal.warn(f"Prefect's server did not start again ({error}). The run goes on.")
            return
        has_ended("The run goes on without it")

    thread = threading.Thread(target=watch, name="Prefect's server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _check_home(home: Path) -> None:
    """Make the home of Prefect, which makes no parents, or refuse it, as on a read-only root."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError("Permission denied")
    except OSError as error:
        raise ClusterError(
            f"Prefect: its home {home} cannot be written ({error.strerror or error}), so its "
            "temporary server has no place for a database. Set PREFECT_HOME to another folder, "
            "such as /tmp/prefect, set PREFECT_API_URL to a server of yours, or run without "
            "Prefect with --local."
        ) from None


def _start(server: _Server, log: PrefectLog, seconds: int) -> None:
    try:
        server.start(timeout=seconds)
    except RuntimeError as error:
        log.keep = True
        raise ClusterError(
            f"Prefect: the temporary server did not start ({error}). Read {log.path}, check the "
            "usual causes with `distill doctor`, or run without Prefect with --local."
        ) from None
    except BaseException:  # an interrupt: a server that is still starting would stop too slowly
        if server.server_process is not None:
            server.server_process.kill()
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
