"""The soak with a fault rate of ten percent; `make soak` uses fifty."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_with_a_tenth_of_everything_failing_a_run_ends_as_one_without_faults(
    tmp_path: Path,
) -> None:
    # A process of its own: clients of the store remember the first server that they were given.
    words = ("--rate", "0.1", "--driver-kills", "1", "--folder", str(tmp_path / "soak"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert "killed, " in done.stdout
    assert "equal to that of a run without faults" in done.stdout
