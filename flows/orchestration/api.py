"""A Prefect API to talk to: the one of PREFECT_API_URL, or a temporary server of our own."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distill_core.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from httpx import HTTPStatusError
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.server.api.server import SubprocessASGIServer

STARTUP_SECONDS = 120  # a cold database on a busy laptop takes 20 s

# Set before Prefect is imported, unless the user has set them.
DEFAULTS: Mapping[str, str] = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_SECONDS),
}
# The terminal belongs to the progress bars and to one line per error; Prefect's own log still goes
# to its API. Whoever sets PREFECT_LOGGING_LEVEL gets it on the terminal too.
QUIET: Mapping[str, str] = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}


def set_defaults() -> None:
    """Turn telemetry off and keep the terminal readable."""
    quiet = {} if "PREFECT_LOGGING_LEVEL" in os.environ else QUIET
    for name, value in {**DEFAULTS, **quiet}.items():
        os.environ.setdefault(name, value)


@contextmanager
def connected() -> Iterator[None]:
    """Make sure that flows find an API; a server started here ends here.

    Raises:
        ClusterError: the temporary server did not start.
    """
    set_defaults()
    from prefect.settings import (
        PREFECT_API_URL,
        temporary_settings,
    )  # after the defaults

    if PREFECT_API_URL.value():
        yield
        return
    from prefect.logging.handlers import APILogHandler
    from prefect.server.api.server import SubprocessASGIServer

    log = Path(tempfile.gettempdir()) / f"distill-prefect-{os.getpid()}.log"
    server = SubprocessASGIServer()
    try:
        _start(server, log)
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            try:
                yield
            finally:
                APILogHandler().flush()  # later, there is no server to send it to
                log.unlink(missing_ok=True)
    finally:
        server.stop()


def _start(server: SubprocessASGIServer, log: Path) -> None:
    """Start a server; it inherits our standard error, and what it says at shutdown is no news."""
    try:
        with _stderr_into(log), _interrupts_held():
            server.start(timeout=STARTUP_SECONDS)
    except RuntimeError as error:
        raise ClusterError(
            f"Prefect: the temporary server did not start ({error}). See {log}; `distill doctor` "
            "checks the usual causes, and --local runs without Prefect."
        ) from None


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for the block; children started meanwhile never get it.

    A terminal sends it to all of us at once, but the server has to hear how the flow run ended.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def client() -> Iterator[SyncPrefectClient]:
    """Talk to the server of PREFECT_API_URL; there is no temporary one for what outlives us.

    Raises:
        ConfigError: no server is named, it refuses us, or it refuses what was asked of it.
        ClusterError: it cannot be reached.
    """
    set_defaults()
    from httpx import HTTPStatusError, TransportError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise ConfigError(
            "Prefect: no server is named. Start one (`prefect server start`) and set "
            "PREFECT_API_URL, e.g. http://127.0.0.1:4200/api."
        )
    try:
        with get_client(sync_client=True) as found:
            yield found
    except HTTPStatusError as error:
        raise ConfigError(f"Prefect: {_refusal(error)}") from None
    except TransportError as error:
        raise ClusterError(
            f"Prefect: no answer from {urlsplit(url).hostname}:{urlsplit(url).port} ({error}). "
            "Is the server of PREFECT_API_URL running, and the port open from here?"
        ) from None


def _refusal(error: HTTPStatusError) -> str:
    """Say why a server refused, in its own words where it has some."""
    code = error.response.status_code
    if code in (401, 403):
        return (
            f"the server refuses us ({code}). Set PREFECT_API_AUTH_STRING to its user:password; "
            "it is read from the environment alone."
        )
    with suppress(ValueError):
        said = error.response.json()
        detail = said.get("detail") or said.get("exception_detail") or said
        return f"the server refuses the request ({code}): {detail}"
    return f"the server answers {code} to {error.request.method} {error.request.url.path}."


@contextmanager
def _stderr_into(path: Path) -> Iterator[None]:
    """Send file descriptor 2 of this process, and of children started meanwhile, to a file."""
    kept = os.dup(2)
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
