"""The result of one check of `distill doctor`, and the time limits and child processes of checks.

Heavy libraries are imported in child processes, so that a broken one does not stop the checks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from types import MappingProxyType
from typing import Any, Literal

from distill_core.exit_codes import describe_exit

Level = Literal["OK", "WARN", "FAIL"]
IMPORT_SECONDS = 180  # of a child process: libraries on a slow disk, read for the first time
QUIET: Mapping[str, str] = MappingProxyType(
    {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
)


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
    """Run code in a child process; return the JSON that it prints, or the last line of its error.

    The objects of several lines are merged.
    """
    facts, error = run_steps(code)
    return facts if error is None else error


def run_steps(
    code: str, environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, Any], str | None]:
    """Run code in a child process; return the JSON that it prints, and how it failed, if it did.

    Args:
        code: prints a JSON object per step, on a line of its own.
        environment: variables of the child besides those of this process.

    Returns:
        The merged objects of the steps before a failure; the last line of the error, or None.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
            check=False,
            env={**os.environ, **QUIET, **environment},
        )
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {IMPORT_SECONDS} s"
    facts: dict[str, Any] = {}
    for line in process.stdout.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    if process.returncode < 0:
        return facts, f"ended with {describe_exit(process.returncode)}"
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        return facts, lines[-1]
    return facts, None


def begin(check: Callable[[], list[Check]]) -> Future[list[Check]]:
    """Start a check in a thread that does not keep this process alive."""
    future: Future[list[Check]] = Future()

    def run() -> None:
        try:
            future.set_result(check())
        except BaseException as error:  # noqa: BLE001 - raised again by `finished`
            future.set_exception(error)

    Thread(target=run, name="check", daemon=True).start()
    return future


def finished(name: str, future: Future[list[Check]], seconds: float) -> list[Check]:
    """Return the results of a check; it has failed if there are none after some seconds."""
    try:
        return future.result(seconds)
    except TimeoutError:
        return [fail(name, f"no answer within {seconds:g} s", "Check that its address answers.")]


def worst(checks: Sequence[Check]) -> Level:
    """Return the worst level of some checks."""
    order: tuple[Level, ...] = ("OK", "WARN", "FAIL")
    return max((check.level for check in checks), key=order.index, default="OK")
