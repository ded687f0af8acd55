"""The files of deploy/."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.support.repository import ROOT

DEPLOY = ROOT / "deploy"
FROM_ENVIRONMENT = re.compile(r"\$\{[A-Z0-9_]+:\?[^}]*\}")  # does not start without it
OURS = (
    "bucket",
    "gc",
    "prefect",
    "ray-gpu-worker",
    "ray-head",
    "ray-worker",
    "serve",
)  # of our image

TELEMETRY = (
    "DO_NOT_TRACK=1",
    "PREFECT_SERVER_ANALYTICS_ENABLED=false",
    "RAY_USAGE_STATS_ENABLED=0",
)
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|_KEY|ROOT_USER|CONNECTION_URL")


def read(name: str) -> str:
    """Return the text of a file."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the Compose file by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(read("compose.yaml"))["services"]
    return found
