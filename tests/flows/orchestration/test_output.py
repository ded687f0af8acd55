"""Output of a flow run whose reader goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from flows.orchestration.output import STARTED

# Rich, and so Prefect's log on the console, ends a process that cannot print any more.
PROGRAM = """
import os, stat, sys
from rich.console import Console
from flows.orchestration import output
from tests.support.waiting import wait_until

output.outlive_worker(None, flow_run=None, state=None)
print("ready", flush=True)
sys.stdin.read()
if output.STARTED in os.environ:
    for number in output.STANDARD:
        wait_until(lambda: not stat.S_ISFIFO(os.fstat(number).st_mode), "the end of the reader")
print("to nobody", flush=True)
Console(stderr=True).print("to nobody")
os._exit(7)
"""


@pytest.mark.parametrize(
    ("variables", "code"), [({STARTED: "id"}, 7), ({}, 1)], ids=["flow run", "other program"]
)
def test_a_flow_run_alone_goes_on_when_nobody_reads_its_output(
    variables: Mapping[str, str], code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"ready\n"
    for stream in (process.stdout, process.stderr, process.stdin):
        stream.close()
    assert process.wait(60) == code
