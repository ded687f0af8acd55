"""The result of one check of `distill doctor`, and the child processes that find it.

Heavy libraries are imported in child processes, so that a broken one does not stop the checks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distill_core.exit_codes import describe_exit

Level = Literal["OK", "WARN", "FAIL"]
IMPORT_SECONDS = 180


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    level: Level
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        """Return e.g. ``WARN  disk: 3 GB free. Free some space.``"""
        return f"{self.level:<4}  {self.name}: {self.detail}." + (
            f" {self.fix}" if self.fix else ""
        )


Probe = Callable[[str], dict[str, Any] | str]


def fail(name: str, detail: str, fix: str) -> Check:
    """Return a failed check."""
    return Check(name, "FAIL", detail, fix)


def run_probe(code: str) -> dict[str, Any] | str:
    """Run code in a child process; return its JSON, or the last line of its error."""
    try:
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
            check=False,
            env=os.environ | {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {IMPORT_SECONDS} s"
    if process.returncode < 0:
        return f"ended with {describe_exit(process.returncode)}"
    if process.returncode != 0:
        return (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return dict(json.loads(process.stdout.strip().splitlines()[-1]))


def worst(checks: Sequence[Check]) -> Level:
    """Return the worst level of some checks."""
    order: tuple[Level, ...] = ("OK", "WARN", "FAIL")
    return max((check.level for check in checks), key=order.index, default="OK")
