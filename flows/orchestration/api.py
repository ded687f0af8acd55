"""Connection to a Prefect API: the one of PREFECT_API_URL, or a temporary server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distill_core.errors import ClusterError, ConfigError
from flows.orchestration.delivery import PrefectLog, delivering

if TYPE_CHECKING:
    from httpx import HTTPStatusError
    from prefect.client.orchestration import SyncPrefectClient

STARTUP_SECONDS = 120  # a cold database on a busy laptop takes 20 s
VERSION_PATH = "/admin/version"  # each server has it, behind the password
ANSWER_SECONDS = 6.0  # for one small request, before a run starts
ABSENT = "Prefect's server does not answer any more."

# Set before Prefect is imported, unless the user has set them.
DEFAULTS: Mapping[str, str] = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_SECONDS),
}
# A server whose database is away answers 500, which Prefect's client does not repeat by default.
# The last request of a flow run would be lost, and Prefect would show it as running for ever.
OF_FLOW_RUNS: Mapping[str, str] = {"PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}
# The terminal shows the progress bars and one line per error. Prefect's log still goes to its API,
# and to the terminal as well if you set PREFECT_LOGGING_LEVEL.
QUIET: Mapping[str, str] = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",  # of its background threads
}


def set_defaults() -> None:
    """Turn telemetry off, and Prefect's log on the terminal."""
    quiet = {} if "PREFECT_LOGGING_LEVEL" in os.environ else QUIET
    for name, value in {**DEFAULTS, **quiet}.items():
        os.environ.setdefault(name, value)


@contextmanager
def connected() -> Iterator[PrefectLog]:
    """Connect flows to an API; if a server is started for this, it stops with the block.

    Yields:
        The log of Prefect, and of a server that is started.

    Raises:
        ConfigError: the server of PREFECT_API_URL refuses access, or is no Prefect API.
        ClusterError: it does not answer, or the temporary server did not start.
    """
    set_defaults()
    from prefect.settings import PREFECT_API_URL

    log = PrefectLog()
    with log.receiving():
        if PREFECT_API_URL.value():
            check_server()
            with repeating(), delivering():
                yield log
            return
        from flows.orchestration.temporary_server import temporary_server

        with temporary_server(STARTUP_SECONDS, log):
            yield log


@contextmanager
def repeating() -> Iterator[None]:
    """Repeat requests, for about a minute, to a server whose database is away."""
    from prefect.settings import PREFECT_CLIENT_RETRY_EXTRA_CODES, temporary_settings

    codes = OF_FLOW_RUNS[PREFECT_CLIENT_RETRY_EXTRA_CODES.name]
    with temporary_settings({PREFECT_CLIENT_RETRY_EXTRA_CODES: codes}):
        yield


def check_server() -> None:
    """Ask the server of PREFECT_API_URL once whether it answers and grants access.

    Does nothing where no server is set, because a run then starts a temporary one.

    Raises:
        ConfigError: the server refuses access, or what answers is no Prefect API.
        ClusterError: there is no answer.
    """
    if (url := server_url()) is None:
        return
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), client(ANSWER_SECONDS) as connection:
        try:
            connection.api_version()
        except ValueError:
            raise _not_an_api(url) from None


def server_url() -> str | None:
    """Return the address of the server that is set, or None.

    Raises:
        ConfigError: it is not an address.
    """
    set_defaults()
    try:
        from prefect.settings import PREFECT_API_URL

        url = PREFECT_API_URL.value() or None
        if url is not None and urlsplit(url).port == 0:
            raise ValueError("port 0")
    except ValueError:
        raise ConfigError(
            "Prefect: PREFECT_API_URL is not an address. Set it to the address of the server, "
            "e.g. http://127.0.0.1:4200/api."
        ) from None
    return url


@contextmanager
def client(timeout: float | None = None) -> Iterator[SyncPrefectClient]:
    """Yield a client of the server of PREFECT_API_URL.

    Deployments and schedules outlive this process, so a temporary server would not do.

    Args:
        timeout: seconds to wait for an answer; by default those of Prefect's settings.

    Raises:
        ConfigError: PREFECT_API_URL is not set, or the server refuses access or the request.
        ClusterError: the server cannot be reached.
    """
    url = server_url()
    from httpx import HTTPStatusError, TransportError
    from prefect.client.orchestration import get_client

    if url is None:
        raise ConfigError(
            "Prefect: PREFECT_API_URL is not set. Start a server (`prefect server start`) and set "
            "it to the server's address, e.g. http://127.0.0.1:4200/api."
        )
    settings = None if timeout is None else {"timeout": timeout}
    try:
        with get_client(sync_client=True, httpx_settings=settings) as connection:
            yield connection
    except HTTPStatusError as error:
        if error.request.url.path.endswith(VERSION_PATH) and error.response.status_code == 404:
            raise _not_an_api(url) from None
        raise ConfigError(f"Prefect: {_refusal(error)}") from None
    except TransportError as error:
        raise ClusterError(
            f"Prefect: no answer from {_address(url)} ({error or type(error).__name__}). Check "
            "that the server of PREFECT_API_URL runs and that its port is reachable."
        ) from None


def is_absence(error: Exception) -> bool:
    """Return whether an error of Prefect means that its server is away or overloaded."""
    from httpx import HTTPStatusError, TransportError

    if isinstance(error, HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, TransportError)


def server_address() -> str | None:
    """Return host and port of the server that is set, without credentials, or None.

    Raises:
        ConfigError: the setting is not an address.
    """
    url = server_url()
    return None if url is None else _address(url)


def _not_an_api(url: str) -> ConfigError:
    return ConfigError(
        f"Prefect: {_address(url)} answers, but not as Prefect's API. Set PREFECT_API_URL to the "
        "address of the API, e.g. http://127.0.0.1:4200/api, with `/api` at the end."
    )


def _address(url: str) -> str:
    """Return host and port of an address, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2] or url


def _refusal(error: HTTPStatusError) -> str:
    """Return why a server refused, with the detail of its answer if there is one."""
    code = error.response.status_code
    if code in (401, 403):
        return (
            f"the server refused access ({code}). Set the environment variable "
            "PREFECT_API_AUTH_STRING to its user:password."
        )
    with suppress(ValueError):
        answer = error.response.json()
        detail = answer.get("detail") or answer.get("exception_detail") or answer
        return f"the server refused the request ({code}): {detail}"
    return f"the server answered {code} to {error.request.method} {error.request.url.path}."
