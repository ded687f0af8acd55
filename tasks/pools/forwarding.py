"""The environment variables of the driver that workers on other nodes are given.

Workers need the addresses of the driver's storage. Who they are is the business of their node: its
environment, its files and its role hold credentials, profiles and certificates, and a variable of
the driver would override them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from distill_core.redaction import redacted

SETTINGS = (
    "DO_NOT_TRACK",
    "DISTILL_DECODERS",
    "DISTILL_RESIDENT_BYTES",
    "DISTILL_DEVICE_BYTES",
    "DISTILL_PACK_CACHE",
    "DISTILL_PACK_CACHE_BYTES",
)
AWS = re.compile(
    r"AWS_(ENDPOINT_URL(_[A-Z0-9_]+)?|REGION|DEFAULT_REGION|USE_(DUALSTACK|FIPS)_ENDPOINT"
    r"|S3_US_EAST_1_REGIONAL_ENDPOINT"
    r"|REQUEST_CHECKSUM_CALCULATION|RESPONSE_CHECKSUM_VALIDATION)"  # of an endpoint that lacks them
)
FSSPEC = re.compile(r"FSSPEC_[A-Za-z0-9]+(?:_(?P<key>\w+))?")
# Settings of fsspec that describe an address; `client_kwargs` and the like only contain others.
ADDRESS_KEYS = ("endpoint_url", "region", "region_name", "use_ssl", "addressing_style")


def forwarded(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that workers on other nodes need.

    These are endpoints and regions of storage, and settings of this program. Ray logs them, so an
    address that holds credentials is left out.
    """
    chosen = {name: _forwarded_value(name, value) for name, value in environment.items()}
    needed = {name: value for name, value in chosen.items() if value and redacted(value) == value}
    return {"RAY_USAGE_STATS_ENABLED": "0", **needed}


def _forwarded_value(name: str, value: str) -> str | None:
    """Return what workers get of a variable; None: nothing."""
    if name in SETTINGS or AWS.fullmatch(name):
        return value
    match = FSSPEC.fullmatch(name)
    if match is None:
        return None
    if not match["key"]:
        return _addresses(value)
    return value if match["key"].lower() in ADDRESS_KEYS else None


def _addresses(text: str) -> str | None:
    """Return the addresses in the JSON with which ``FSSPEC_<PROTOCOL>`` configures fsspec."""
    try:
        tree = json.loads(text)
    except ValueError:
        return None
    kept = _only_addresses(tree) if isinstance(tree, dict) else {}
    return json.dumps(kept) if kept else None


def _only_addresses(tree: Mapping[str, Any]) -> dict[str, Any]:
    parts = {k: _only_addresses(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {
        key: value
        for key, value in parts.items()
        if (value if isinstance(value, dict) else key in ADDRESS_KEYS)
    }
