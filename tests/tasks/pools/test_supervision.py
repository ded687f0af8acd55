"""Processes that a driver started end with it, and no others do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tasks.pools import supervision
from tasks.pools.supervision import VARIABLE, marked, supervised
from tests.support.stopping import is_alive
from tests.support.waiting import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# Its child has another environment, as a process that changes its title.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={})
print(child.pid, flush=True)
time.sleep(600)
"""
DRIVER = f"""
import ctypes, os, subprocess, sys, time
from tasks.pools.supervision import marked, supervised
SLEEP, PARENT = {SLEEP!r}, {PARENT!r}
with supervised():
    with marked():
        ours = subprocess.Popen(SLEEP)
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
        )
        grandchild = parent.stdout.readline().strip()
    other = subprocess.Popen(SLEEP)
    time.sleep(3)  # the reaper looks for new processes every second
    print(ours.pid, parent.pid, grandchild, other.pid, flush=True)
    LAST
print("ended", flush=True)
sys.stdin.read()
"""


@contextmanager
def driver(last: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a driver with three processes of its own and another one; yield it and these four.

    Args:
        last: what it does at the end of its supervised block.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER.replace("LAST", last)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    family: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        family += [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        yield process, family
    finally:
        process.kill()
        for one in filter(is_alive, family):
            one.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def test_what_a_killed_driver_started_ends_and_other_processes_stay() -> None:
    with driver("sys.stdin.read()") as (process, (*ours, other)):
        assert all(map(is_alive, ours))
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, ours)), "the end of the driver's processes", 60)
        assert is_alive(other)


@pytest.mark.parametrize(
    "last", ["os._exit(1)", "os.abort()", "ctypes.CDLL(None).exit(1)"], ids=["exit", "abort", "C"]
)
def test_what_a_driver_started_ends_when_native_code_ends_the_driver(last: str) -> None:
    with driver(f"sys.stdin.readline(); {last}") as (process, (*ours, other)):
        assert all(map(is_alive, ours))
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_until(lambda: not any(map(is_alive, ours)), "the end of the driver's processes", 60)
        assert process.wait(60) in (1, -signal.SIGABRT)
        assert is_alive(other)


def test_at_the_end_of_the_block_what_is_left_ends_and_the_program_goes_on() -> None:
    with driver("pass") as (process, (*ours, other)):
        assert process.stdout is not None
        assert process.stdout.readline() == "ended\n"
        assert not any(map(is_alive, ours))
        assert is_alive(other)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


INTERRUPTED = """
import os, signal, threading, time
from tasks.pools.signals import terminable
from tasks.pools.supervision import supervised
def interrupt():
    arrived = threading.Event()
    with terminable(notice=lambda number: arrived.set()):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            arrived.wait(30)
try:
    BLOCK
except KeyboardInterrupt:
    time.sleep(2.5)
"""


@pytest.mark.parametrize(
    "block",
    [
        "with supervised(1.0): interrupt()",
        """with supervised(1.0):
        try:
            interrupt()
        except KeyboardInterrupt:
            time.sleep(2.5)""",
    ],
    ids=["after the block", "in the block"],
)
def test_a_program_that_goes_on_after_an_interrupt_is_not_killed(block: str) -> None:
    program = INTERRUPTED.replace("BLOCK", block)
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


REAPER_IS_KILLED = """
import os, psutil, sys
from tasks.pools.supervision import marked, supervised
with supervised():
    (reaper,) = psutil.Process().children()
    reaper.kill()
    reaper.wait()
"""


def test_a_driver_survives_the_loss_of_its_reaper() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REAPER_IS_KILLED], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


ENDS_WITH_ITS_PARENT = """
import subprocess, sys, time
CHILD = "import os, sys, time; from distill_core.lifetime import end_with_parent; "
CHILD += "end_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(600)"
import os
subprocess.run([sys.executable, "-c", CHILD, str(os.getpid())])
"""


def test_a_child_that_is_busy_ends_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ENDS_WITH_ITS_PARENT], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        wait_until(lambda: not is_alive(child), "the end of the child", 60)
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize("nested", [False, True])
def test_processes_are_marked_only_in_the_block(
    nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    # A test before may have left a pool open, which supervises this process.
    monkeypatch.setattr(supervision, "_supervisor", None)
    monkeypatch.setattr(supervision, "_depth", 0)
    with marked():
        assert VARIABLE not in os.environ
    with supervised():
        with marked():
            mark = os.environ[VARIABLE]
            if nested:
                with supervised(), marked():
                    assert os.environ[VARIABLE] == mark
            assert os.environ[VARIABLE] == mark
        assert VARIABLE not in os.environ
