"""Connecting to Ray, or starting it, and stopping only what was started here.

Everything is said explicitly: a bare ``ray.init()`` joins whatever cluster it finds on the machine,
and the first one switches token authentication on for the rest of the process.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RaySystemError

from distill_core.errors import ClusterError, ConfigError
from tasks.pools.session_folder import session_folder
from tasks.pools.signals import kept_handlers

OBJECT_STORE_BYTES = 128 * 2**20  # receipts are small; the default takes 30 % of the memory
KNOCK_SECONDS = 10.0
SHORT = 24  # characters of a temporary folder; sockets far below it have names of at most 107
FORWARDED = ("AWS_", "FSSPEC_", "DO_NOT_TRACK", "DISTILL_DECODERS", "DISTILL_RESIDENT_BYTES")
SECRET = ("KEY", "SECRET", "TOKEN", "PASSWORD")  # Ray writes what it is given into its logs


@dataclass(frozen=True)
class Resources:
    """What a number of workers ask for, each the same."""

    workers: int
    num_cpus: float
    num_gpus: float

    def __str__(self) -> str:
        return (
            f"{self.workers} x num_cpus={self.num_cpus:g} = {self.workers * self.num_cpus:g} CPUs "
            f"and {self.workers} x num_gpus={self.num_gpus:g} = "
            f"{self.workers * self.num_gpus:g} GPUs"
        )


@contextmanager
def connected(address: str | None, *, num_cpus: float = 1.0) -> Iterator[Mapping[str, str]]:
    """Use the Ray of this process, join a cluster, or start a local one for the block.

    Args:
        address: ``host:port``, ``ray://host:port``, ``auto``, or None for a local one.
        num_cpus: CPUs that a local one shall have at the least. They are bookkeeping: more of them
            than cores is slow, not wrong.

    Yields:
        Environment variables that actors need and do not inherit.

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
    """Start a local Ray for the block: no dashboard, its own folder, a token of its own.

    Args:
        num_cpus: logical CPUs.
        num_gpus: logical GPUs; None: those that Ray finds.

    Raises:
        ClusterError: it does not come up.
    """
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray warns about the coming change
        # No dashboard, no task events: a driver whose Ray was ended by the same Ctrl-C, which a
        # whole process group receives, would wait for seconds to send them.
        "RAY_task_events_report_interval_ms": "0",
    }
    with session_folder(_short_folder()) as folder, _environment(environment):
        try:
            with kept_handlers(), _ours("a local Ray cluster"):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    num_gpus=num_gpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,  # preflight and timeouts say what its warnings would
                    logging_level="error",
                    _temp_dir=folder,
                )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _joined(address: str) -> Iterator[None]:
    _reach(address)
    token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    mode = "token" if token else "disabled"
    with _environment({"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": mode}):
        try:
            # The port answers, so a refused token is likely; Ray itself only logs that.
            held = "the one set here is refused" if token else "none is set here"
            hint = (
                " Is a Ray head of our version listening there? If it asks for a token, set "
                f"RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's own; {held}."
            )
            with kept_handlers(), _ours(f"ray_address={address}", hint):
                ray.init(address=address, log_to_driver=False, logging_level="error")
            yield
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    """Knock first: `ray.init` itself tries for minutes where nobody answers."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        raise ConfigError(
            f"ray_address={address}: expected host:port, ray://host:port or auto. Leave it out to "
            "start a local cluster."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"ray_address={address}: cannot be reached: {error}. Is the head running, and the port "
            "open from here?"
        ) from error


def forwarded(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that workers elsewhere need, storage's mostly.

    Credentials are not among them: nodes have their own, from their environment or their role.
    """
    found = {
        name: value
        for name, value in environment.items()
        if name.startswith(FORWARDED) and not any(word in name for word in SECRET)
    }
    return {"RAY_USAGE_STATS_ENABLED": "0", **found}


def room(num_cpus: float, num_gpus: float) -> int:
    """Return how many workers of this size the nodes can hold, none straddling two of them."""
    return sum(_fit(node, num_cpus, num_gpus) for node in _nodes())


def preflight(demand: Resources, *, what: str = "workers") -> None:
    """Refuse a demand that the cluster can never meet; without this it would wait in silence.

    Args:
        demand: workers and the size of each.
        what: name of the setting that says how many.

    Raises:
        ConfigError: names what is demanded and what there is.
    """
    fits = room(demand.num_cpus, demand.num_gpus)
    if fits >= demand.workers:
        return
    raise ConfigError(
        f"{what} = {demand.workers}: {demand} are demanded, but the cluster has {describe()}, room "
        f"for {fits}. Ask for fewer {what} or smaller num_cpus and num_gpus, or add nodes."
    )


def describe() -> str:
    """Return what the cluster has, and what of it is free."""
    total, free = _totals(ray.cluster_resources()), _totals(ray.available_resources())
    nodes = len(_nodes())
    return (
        f"{total['CPU']:g} CPUs and {total['GPU']:g} GPUs on {nodes} node{'s' * (nodes != 1)} "
        f"({free['CPU']:g} and {free['GPU']:g} free)"
    )


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fit(node: Mapping[str, float], num_cpus: float, num_gpus: float) -> int:
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    counts = [
        int(node.get(name, 0.0) / amount + 1e-6) for name, amount in wanted.items() if amount > 0
    ]
    return min(counts, default=1_000_000)


def _totals(resources: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(resources.get(name, 0.0)) for name in ("CPU", "GPU")}


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= SHORT else "/tmp"


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set variables that nobody has set, and restore the environment afterwards."""
    before = {name: os.environ.get(name) for name in defaults}
    os.environ.update({name: value for name, value in defaults.items() if before[name] is None})
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        _read_again()


def _read_again() -> None:
    """Make Ray see the environment; its core read it when it was imported.

    Ray does the same in ``ray._private.authentication.authentication_token_setup``.
    """
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _ours(where: str, hint: str = "") -> Iterator[None]:
    """Turn what Ray raises while connecting into our errors."""
    try:
        yield
    except AuthenticationError as error:
        raise ConfigError(
            f"{where}: the cluster refuses our token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN "
            f"or RAY_AUTH_TOKEN_PATH to the cluster's own. {_first_line(error)}"
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, RaySystemError, ValueError) as error:
        raise ClusterError(
            f"{where}: cannot be reached or started: {_first_line(error)}.{hint}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
