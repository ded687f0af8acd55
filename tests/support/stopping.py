"""A driver that a signal stops at some moment: how it ends, and what outlives it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from distill_core.storage.digest import sha256
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.stages.table import sharded_kinds
from tests.support.pipeline import TINY
from tests.support.repository import ROOT

MARK = "DISTILL_TEST_DRIVER"
PATIENCE_SECONDS = 60.0  # for processes to end; nothing is measured with it
POLL_SECONDS = 0.2
CODES = {  # by signal: after our handler, and before it is installed
    signal.SIGINT: {130, -signal.SIGINT},
    signal.SIGTERM: {143, -signal.SIGTERM},
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGABRT: {-signal.SIGABRT},
}
SMALL = ("digits-demo-16px", *TINY, 'posttrain.sets=["distilled"]')
Family = dict[psutil.Process, str]  # processes, and the command line of each when it was seen


@dataclass(frozen=True)
class Blow:
    """What hits a driver."""

    number: signal.Signals
    group: bool = False  # the whole process group, as Ctrl-C in a terminal
    again: bool = False  # a second one a second later

    def __str__(self) -> str:
        return f"{self.number.name}{' twice' * self.again}{' to the group' * self.group}"


@dataclass(frozen=True)
class Ending:
    """How a driver and its children ended."""

    phase: str  # what it was doing
    code: int
    driver_seconds: float  # from the signal to the end of the driver
    seconds: float  # from the signal to the end of its last child
    leftovers: tuple[str, ...]  # command lines of children that had to be killed
    output: str

    @property
    def in_time(self) -> bool:
        """Return whether the run had ended before the signal."""
        return self.code == 0


class Driver:
    """A command of ours in a session of its own; its processes are followed from the start.

    Args:
        arguments: of the command line.
        home: of Prefect, for its database; also the place of the output.
        variables: more environment variables.
    """

    def __init__(self, arguments: Sequence[str], home: Path, **variables: str) -> None:
        self._mark, self.family = secrets.token_hex(8), Family()
        self._log = home / "driver.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "RAY_"))}
        environment = clean | {MARK: self._mark, "PREFECT_HOME": str(home)} | variables
        home.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def follow(self, until: Callable[[], bool]) -> None:
        """Record the driver's processes until something holds or the driver has ended."""
        while self.process.poll() is None and not until():
            self._look()
            time.sleep(POLL_SECONDS)

    def hit(self, blow: Blow) -> Ending:
        """Send a signal, and follow what happens until every process has ended or time is up."""
        self._look()
        phase, start = self.phase(), time.monotonic()
        self._send(blow)
        second = start + 1.0 if blow.again else None
        while self.process.poll() is None and time.monotonic() - start < PATIENCE_SECONDS:
            if second is not None and time.monotonic() > second:
                self._send(blow)
                second = None
            self._look()
            time.sleep(POLL_SECONDS)
        driver_seconds = time.monotonic() - start
        while (living := self.living()) and time.monotonic() - start < PATIENCE_SECONDS:
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - start
        leftovers = tuple(self.family[process] for process in living)
        self.kill()
        code = self.process.wait()
        return Ending(phase, code, driver_seconds, seconds, leftovers, self.output())

    def output(self) -> str:
        """Return what the driver has printed, on both streams."""
        return self._log.read_text(errors="replace")

    def phase(self) -> str:
        """Return what the driver is doing, by its living processes."""
        living = " ".join(self.family[process] for process in self.living())
        for phase, sign in (
            ("stage", "Worker"),
            ("Ray starts", "gcs_server"),
            ("Prefect's server starts, or the flow", "uvicorn"),
        ):
            if sign in living:
                return phase
        return "start of the command"

    def living(self) -> list[psutil.Process]:
        """Return the living processes that the driver has started."""
        self._look_for_mark()
        return [process for process in self.family if is_alive(process)]

    def kill(self) -> None:
        """Kill the driver and all of its processes."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.living():
            with suppress(psutil.Error):
                process.kill()

    def _send(self, blow: Blow) -> None:
        with suppress(ProcessLookupError):
            (os.killpg if blow.group else os.kill)(self.process.pid, blow.number)

    def _look(self) -> None:
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._record(child)

    def _look_for_mark(self) -> None:
        """Record processes that carry the mark, in whatever family they are now."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != self.process.pid and process.environ().get(MARK) == self._mark:
                    self._record(process)

    def _record(self, process: psutil.Process) -> None:
        with suppress(psutil.Error):
            self.family[process] = " ".join(process.cmdline()).strip() or process.name()


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def damaged_shards(store: Store) -> list[str]:
    """Return the committed shards of a store whose files do not match their markers."""
    damaged = []
    for kind in sharded_kinds():
        shards = ShardStore(store, kind)
        for key in shards.done():
            marker = shards.marker(key)
            if marker is None or any(
                sha256(store.read(info.path)) != info.sha256 for info in marker.files
            ):
                damaged.append(f"{kind}/{key}")
    return damaged
