"""The command line, run in this process or in a fresh one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

import pytest

from flows import cli, terminal

HEAVY = ("torch", "ray", "prefect", "matplotlib", "pydantic", "pyarrow")


class CommandOutput(NamedTuple):
    """The output of a command and its exit code."""

    out: str
    err: str
    code: int


class Distill:
    """Runs the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> CommandOutput:
        """Run one command."""
        self._monkeypatch.setattr(sys, "argv", ["distill", *arguments])
        terminal.warn.cache_clear()  # a process prints each warning once
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = self._capsys.readouterr()
        return CommandOutput(out, err, int(end.value.code or 0))


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Distill:
    """Return the command line."""
    return Distill(monkeypatch, capsys)


def modules_after(code: str) -> list[str]:
    """Return which heavy libraries a fresh interpreter has loaded after some code."""
    report = f"print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{report}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return list(json.loads(done.stdout.strip().splitlines()[-1].replace("'", '"')))
