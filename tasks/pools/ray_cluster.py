"""Connections to Ray: joins a cluster or starts a local one, and stops only what it started.

Every setting is explicit: a bare ``ray.init()`` joins any cluster that it finds on the machine, and
the first one turns token authentication on for the rest of the process.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RaySystemError

from distill_core.errors import ClusterError, ConfigError
from tasks.pools.forwarding import forwarded
from tasks.pools.session_folder import session_folder
from tasks.pools.signals import preserved_handlers
from tasks.pools.supervision import marked, supervised

OBJECT_STORE_BYTES = 128 * 2**20  # receipts are small; the default takes 30 % of the memory
CONNECT_SECONDS = 10.0
MAX_FOLDER = 24  # characters of a temporary folder; paths of sockets below it have at most 107


@contextmanager
def connected(address: str | None, *, num_cpus: float = 1.0) -> Iterator[Mapping[str, str]]:
    """Use the Ray of this process, join a cluster, or start a local one for the block.

    Args:
        address: ``host:port``, ``ray://host:port``, ``auto``, or None for a local one.
        num_cpus: least number of CPUs of a local one. They serve scheduling only: more of them
            than cores is slow, but not wrong.

    Yields:
        The environment variables that actors need and do not inherit.

    Raises:
        ConfigError: the cluster refuses our token.
        ClusterError: there is no cluster at the address.
    """
    if ray.is_initialized():
        yield forwarded(os.environ)
    elif address is None:
        with started(num_cpus=max(os.cpu_count() or 1, -int(-num_cpus // 1))):
            yield {}  # its processes are our children
    else:
        with _joined(address):
            yield forwarded(os.environ)


@contextmanager
def started(*, num_cpus: int, num_gpus: int | None = None) -> Iterator[None]:
    """Start a local Ray for the block, without a dashboard, with its own folder and token.

    Args:
        num_cpus: logical CPUs.
        num_gpus: logical GPUs; None: as many as Ray finds.

    Raises:
        ClusterError: it does not start.
    """
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a coming change
        # Without a dashboard nobody reads task events. Ctrl-C reaches the whole process group, and
        # the driver would wait for seconds to send events to a Ray that has ended, too.
        "RAY_task_events_report_interval_ms": "0",
    }
    with (
        session_folder(_short_folder()) as folder,
        supervised(),  # Ray may leave processes behind, certainly if its start is interrupted
        _environment(environment),
    ):
        try:
            with marked(), preserved_handlers(), _translated_errors("a local Ray cluster"):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    num_gpus=num_gpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,  # preflight and timeouts replace its warnings
                    logging_level="error",
                    _temp_dir=folder,
                )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _joined(address: str) -> Iterator[None]:
    _check_reachable(address)
    token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    mode = "token" if token else "disabled"
    with _environment({"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": mode}):
        try:
            # The port answers, so a refused token is the likely cause, which Ray only logs.
            state = "the token set here is refused" if token else "no token is set here"
            hint = (
                f" Check that a Ray head of version {ray.__version__} listens there. If it needs a "
                f"token, set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token; {state}."
            )
            with preserved_handlers(), _translated_errors(f"ray_address={address}", hint):
                ray.init(address=address, log_to_driver=False, logging_level="error")
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Open the port first: `ray.init` tries for minutes when nothing listens there."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        raise ConfigError(
            f"ray_address={address}: expected host:port, ray://host:port or auto. Omit it to start "
            "a local cluster."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"ray_address={address}: cannot be reached: {error}. Check that the head is running "
            "and that its port is open to this machine."
        ) from error


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= MAX_FOLDER else "/tmp"


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that are not set, and restore the environment afterwards."""
    before = {name: os.environ.get(name) for name in defaults}
    os.environ.update({name: value for name, value in defaults.items() if before[name] is None})
    _reload_ray_settings()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        _reload_ray_settings()


def _reload_ray_settings() -> None:
    """Make Ray read the environment again; its core reads it only on import.

    Ray does the same in ``ray._private.authentication.authentication_token_setup``.
    """
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _translated_errors(source: str, hint: str = "") -> Iterator[None]:
    """Turn the errors that Ray raises while connecting into our own."""
    try:
        yield
    except AuthenticationError as error:
        raise ConfigError(
            f"{source}: the cluster refuses our token. Set RAY_AUTH_MODE=token, and set "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token. "
            f"{_first_line(error)}"
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, RaySystemError, ValueError) as error:
        raise ClusterError(
            f"{source}: cannot be reached or started: {_first_line(error)}.{hint}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
