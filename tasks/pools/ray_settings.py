"""The settings of Ray in this process: its environment variables, and what it prints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

# Without an answer of the GCS for so long, Ray ends the driver natively; our watch is earlier.
NATIVE_END = {"RAY_gcs_rpc_server_reconnect_timeout_s": "300"}


def has_token() -> bool:
    """Return whether the environment holds the token of a cluster."""
    return any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))


def token_mode() -> str:
    """Return the mode of authentication for a cluster of others, unless one is set."""
    return "token" if has_token() else "disabled"


@contextmanager
def environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that are not set, and restore the environment afterwards."""
    defaults = {**NATIVE_END, **defaults}
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
def quiet() -> Iterator[None]:
    """Keep what Ray prints about its processes off the terminal; its log files have it, too."""
    worker = ray._private.worker
    before, worker._worker_logs_enabled = worker._worker_logs_enabled, False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before
