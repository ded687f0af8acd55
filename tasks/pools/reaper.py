"""Kills what a driver leaves behind: a small process that runs beside the driver.

`tasks.pools.supervision` starts this file as a script, in a session of its own, so that neither
Ctrl-C nor the end of the driver reaches it. It imports nothing of this project: it has to start in
a fraction of a second, and to live on when the driver's installation is gone.

A process belongs to the driver if the driver's token is in its environment, or if it was seen as a
child of one that belongs. The second rule is needed because programs that change their title
overwrite their environment, as Ray's do. Everything else is never touched.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

import psutil

POLL_SECONDS = 1.0  # between two looks at the processes of this machine
YOUNG_SECONDS = 3.0  # a process gets its own environment and title some time after its start
STUCK_SECONDS = 0.5  # that a signal may lie unread by a thread of the driver
PAUSE_SECONDS = 0.1
QUIET_ROUNDS = 5  # without a process to kill: what the driver was just starting has appeared
ROUNDS = 300
DONE = 0  # byte: the driver has stopped what it started
UNWOUND = 255  # byte: a block has ended after a signal, and the program goes on


class Reaper:
    """Watches one driver.

    Args:
        driver: its process id; it is our parent.
        mark: `NAME=token`, in the environment of what the driver starts.
        grace_seconds: from a signal to the driver until the driver is killed.
        line: descriptor of the pipe from the driver, which closes when the driver ends.
        signals: the socket on which the driver's own threads learn of signals, if it has one.
    """

    def __init__(
        self, driver: int, mark: str, grace_seconds: float, line: int, signals: socket.socket | None
    ) -> None:
        self._driver, self._line, self._signals = driver, line, signals
        self._grace_seconds, self._unread_since = grace_seconds, math.inf
        self._name, _, self._token = mark.partition("=")
        self._ours: set[psutil.Process] = set()
        self._foreign: set[int] = set()  # process ids that need not be examined again

    def run(self) -> None:
        """Watch until the driver is gone or done, then kill what is left.

        The driver sends DONE, UNWOUND, or the number of a signal that has to end it.
        """
        deadline = math.inf
        while os.getppid() == self._driver:
            for byte in self._read():
                if byte == DONE:
                    return self._kill_all(quiet_rounds=1)
                limit = min(deadline, time.monotonic() + self._grace_seconds)
                deadline = math.inf if byte == UNWOUND else limit
            if self._is_stuck():
                deadline = min(deadline, self._unread_since + self._grace_seconds)
            if time.monotonic() > deadline:
                os.kill(self._driver, signal.SIGKILL)  # it is alive, because it is still our parent
                break
            self._look(psutil.pids())
        return self._kill_all(quiet_rounds=QUIET_ROUNDS)

    def _read(self) -> bytes:
        """Return what the driver sent; the pipe is at its end just before the driver is gone."""
        if not select.select([self._line], [], [], POLL_SECONDS)[0]:
            return b""
        data = os.read(self._line, 64)
        if not data:
            time.sleep(PAUSE_SECONDS)
        return data

    def _is_stuck(self) -> bool:
        """Return whether no thread of the driver has read a signal, as in a C function that hangs.

        A library that is loaded from a slow disk, for example, keeps all Python threads waiting.
        """
        data = b""
        if self._signals is not None:
            with suppress(OSError):
                data = self._signals.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        now = time.monotonic()
        unread = any(byte in (signal.SIGINT, signal.SIGTERM) for byte in data)
        self._unread_since = min(self._unread_since, now) if unread else math.inf
        return now - self._unread_since >= STUCK_SECONDS

    def _look(self, pids: list[int]) -> None:
        """Find new processes of the driver."""
        self._foreign.intersection_update(pids)
        known = self._foreign | {process.pid for process in self._ours} | {os.getpid()}
        for pid in pids:
            if pid not in known:
                # A process may end meanwhile; nothing that one of them does may end this one.
                with suppress(Exception):
                    self._examine(psutil.Process(pid))

    def _examine(self, process: psutil.Process) -> None:
        if self._is_ours(process):
            self._ours.add(process)
        elif time.time() - process.create_time() > YOUNG_SECONDS:
            self._foreign.add(process.pid)

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == self._driver:
            return False
        with suppress(psutil.Error, OSError):  # the environment of another user's process
            if process.environ().get(self._name) == self._token:
                return True
        return process.parent() in self._ours

    def _kill_all(self, *, quiet_rounds: int) -> None:
        """Kill every process of the driver, and those that they start meanwhile."""
        quiet = 0
        for _ in range(ROUNDS):
            self._foreign.clear()
            self._look(psutil.pids())  # in ascending order: parents usually come first
            living = [process for process in self._ours if _is_alive(process)]
            for process in living:
                with suppress(psutil.Error, OSError):
                    process.kill()  # checks that the id still means the same process
            quiet = 0 if living else quiet + 1
            if quiet >= quiet_rounds:
                return
            time.sleep(PAUSE_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False


def main(driver: str, mark: str, grace_seconds: str, signals: str = "") -> None:
    """Watch a driver; the arguments are those of `Reaper`, as text."""
    shared = socket.socket(fileno=int(signals)) if signals else None
    Reaper(int(driver), mark, float(grace_seconds), 0, shared).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
