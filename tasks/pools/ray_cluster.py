"""Connections to Ray: joins a cluster or starts a local one, and stops only what it started.

Every setting is explicit: a bare ``ray.init()`` joins any cluster that it finds on the machine, and
the first one turns token authentication on for the rest of the process.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

from distill_core.errors import ClusterError, ConfigError
from distill_core.machine_share import machine_memory
from tasks.pools.forwarding import forwarded
from tasks.pools.ray_membership import check_is_node
from tasks.pools.ray_settings import environment, has_token, quiet, token_mode
from tasks.pools.ray_watch import OwnRay, RayWatch, reachable
from tasks.pools.session_folder import session_folder
from tasks.pools.signals import preserved_handlers
from tasks.pools.supervision import marked, supervised

OBJECT_STORE_BYTES = 128 * 2**20  # receipts are small; the default takes 30 % of the memory
CONNECT_SECONDS = 10.0
AWAY_SECONDS = 60.0  # that a cluster of others may be away, e.g. while its head restarts
SHUTDOWN_SECONDS = 20.0  # that leaving a Ray that is gone may take; without its GCS it takes 12 s
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
        ConfigError: the cluster refuses our token, or this machine is none of its nodes.
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
    settings = {
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
        environment(settings),
        quiet(),
    ):
        watch = None
        try:
            hint = " If this machine is very busy, run the command again; --local needs no Ray."
            with marked(), preserved_handlers(), _translated_errors("a local Ray cluster", hint):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    num_gpus=num_gpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _memory=machine_memory(),  # not only what is free at the moment
                    log_to_driver=False,  # preflight and timeouts replace its warnings
                    logging_level="critical",
                    _temp_dir=folder,
                )
            watch = _watch_own(folder)
            with watch.watching():
                yield
        finally:
            _shut_down(is_gone=watch is not None and watch.loss is not None)


def _watch_own(folder: str) -> RayWatch:
    processes = {
        name: [info.process for info in group]
        for name, group in ray._private.worker._global_node.all_processes.items()
    }
    own = OwnRay(processes, Path(folder, "session_latest", "logs"))
    return RayWatch(own.look, end=own.end)


def check_joinable(address: str) -> None:
    """Check that this process can join a cluster, without joining it.

    Args:
        address: ``host:port``; a ``ray://`` address and ``auto`` are left to Ray.

    Raises:
        ConfigError: the cluster refuses our token, or this machine is none of its nodes.
        ClusterError: there is no cluster at the address.
    """
    with _joining(address):
        if address != "auto" and not address.startswith("ray://"):
            check_is_node(address)


@contextmanager
def _joining(address: str) -> Iterator[None]:
    """Set the variables with which a cluster is joined; errors of the block become our own."""
    _check_reachable(address)
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": token_mode()}
    # The port answers, so a refused token is the likely cause, which Ray only logs.
    state = "the token set here is refused" if has_token() else "no token is set here"
    hint = (
        f" Check that a Ray head of version {ray.__version__} listens there. If it needs a "
        f"token, set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token; {state}."
    )
    with environment(settings), _translated_errors(f"ray_address={address}", hint, f"; {state}"):
        yield


@contextmanager
def _joined(address: str) -> Iterator[None]:
    check_joinable(address)
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": token_mode()}
    with environment(settings), quiet():
        watch = None
        try:
            with preserved_handlers(), _joining(address):
                ray.init(address=address, log_to_driver=False, logging_level="critical")
            watch = RayWatch(reachable(_services(address), AWAY_SECONDS))
            with watch.watching():
                yield
        finally:
            _shut_down(is_gone=watch is not None and watch.loss is not None)


def _services(address: str) -> dict[str, tuple[str, int]]:
    """Return the addresses of the services that this process cannot work without."""
    if address.startswith("ray://"):
        return {"client server": _host_and_port(address)}
    context = ray.get_runtime_context()
    services = {"GCS": _host_and_port(context.gcs_address)}
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            services["raylet"] = node["NodeManagerAddress"], node["NodeManagerPort"]
    return services


def _shut_down(*, is_gone: bool) -> None:
    """Leave Ray, in a limited time if it is gone."""
    if not is_gone:
        ray.shutdown()
        return
    thread = threading.Thread(target=ray.shutdown, name="ray shutdown", daemon=True)
    thread.start()
    thread.join(SHUTDOWN_SECONDS)
    if thread.is_alive():
        atexit.unregister(ray.shutdown)  # it would wait again


def _check_reachable(address: str) -> None:
    """Open the port first: `ray.init` tries for minutes when nothing listens there."""
    if address == "auto":
        return
    service = _host_and_port(address)
    try:
        socket.create_connection(service, CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"ray_address={address}: cannot be reached: {error}. Check that the head is running "
            "and that its port is open to this machine."
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        raise ConfigError(
            f"ray_address={address}: expected host:port, ray://host:port or auto. Omit it to start "
            "a local cluster."
        )
    return host.strip("[]"), int(port)


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= MAX_FOLDER else "/tmp"


@contextmanager
def _translated_errors(source: str, hint: str = "", state: str = "") -> Iterator[None]:
    """Turn the errors that Ray raises while connecting into our own.

    Args:
        source: names what is connected to.
        hint: ends the error if it cannot be reached.
        state: of the token, for the error if access is refused.
    """
    try:
        yield
    except AuthenticationError as error:
        raise ConfigError(
            f"{source}: the cluster refuses access{state}. Set RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the cluster's token, and RAY_AUTH_MODE, if it is set, to token."
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # Ray raises a bare one if a node starts too slowly
        reason = _first_line(error).rstrip(".")
        raise ClusterError(f"{source}: cannot be reached or started: {reason}.{hint}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
