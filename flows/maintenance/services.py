"""Checks of a Ray cluster: the head that a driver joins, and the Jobs API."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from distill_core.errors import ConfigError
from distill_core.naming.addresses import check_host
from flows.maintenance.findings import Check, fail

ANSWER_SECONDS = 4.0
MAX_ANSWER = 10_000  # bytes that are read; an answer has some hundred
VERSION = "/api/version"  # behind the token, like the requests of a submission


def check_head(address: str) -> list[Check]:
    """Check that something listens at the address of a cluster.

    The token and the version are checked when a driver joins, which takes seconds.

    Args:
        address: ``host:port`` or ``ray://host:port``.
    """
    fix = "Check that the head runs, and that its port is open to this machine."
    try:
        check_host(address, key="--ray-address")
        parts = urlsplit(f"//{address.removeprefix('ray://')}")
        if not (parts.hostname and parts.port):
            raise ValueError("expected host:port")
        socket.create_connection((parts.hostname, parts.port), ANSWER_SECONDS).close()
    except ConfigError as error:
        return [fail("ray address", str(error).rstrip("."), "")]
    except (OSError, ValueError) as error:
        return [fail("ray address", f"{address} cannot be reached: {error}", fix)]
    return [Check("ray address", "OK", f"{address} answers")]


def check_jobs_api(
    address: str, environment: Mapping[str, str] = os.environ, number: str | None = None
) -> list[Check]:
    """Check that the Jobs API answers, accepts the token, and has the same version of Ray.

    Args:
        address: ``http://host:8265``.
        environment: RAY_AUTH_TOKEN holds the token, or RAY_AUTH_TOKEN_PATH names its file.
        number: version of Ray here; by default the installed one.
    """
    fix = (
        "Check that the head runs with a dashboard, and that its port 8265 is open to this machine."
    )
    try:
        check_host(address, key="--submit")
        there = str(_answer(address, _token(environment)).get("ray_version"))
    except ConfigError as error:
        return [fail("jobs api", str(error).rstrip("."), "")]
    except HTTPError as error:
        if error.code in (401, 403):
            fix = "Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the token of the cluster."
            return [fail("jobs api", f"{address} refuses the token ({error.code})", fix)]
        return [fail("jobs api", f"{address} answers {error.code}", fix)]
    except (OSError, ValueError, HTTPException) as error:
        return [fail("jobs api", f"{address}: no answer of Ray: {error}", fix)]
    here = number or version("ray")
    if there != here:
        detail = f"{address} runs Ray {there}, this machine has {here}"
        return [Check("jobs api", "WARN", detail, "Use the same image for the cluster and here.")]
    return [Check("jobs api", "OK", f"{address}, Ray {there}")]


def _answer(address: str, token: str | None) -> Mapping[str, object]:
    if urlsplit(address).scheme not in ("http", "https"):
        raise ValueError("expected http://host:8265")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(address.rstrip("/") + VERSION, headers=headers)
    with urlopen(request, timeout=ANSWER_SECONDS) as answer:
        found = json.loads(answer.read(MAX_ANSWER))
    if not isinstance(found, dict):
        raise ValueError("its answer is not that of Ray")
    return found


def _token(environment: Mapping[str, str]) -> str | None:
    if token := environment.get("RAY_AUTH_TOKEN"):
        return token
    if path := environment.get("RAY_AUTH_TOKEN_PATH"):
        return Path(path).read_text(encoding="utf-8").strip()
    return None
