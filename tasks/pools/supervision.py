"""Supervision of a driver: whatever ends it, the processes that it started end as well.

Ray and Prefect start processes that outlive a driver that is killed, or that is interrupted while
they start. A second process, `tasks.pools.reaper`, waits for the driver's end and kills what is
left. It recognises our processes by a token that only they have in their environment, so Ray
clusters and Prefect servers that were started by others are never touched.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tasks.pools import reaper

VARIABLE = "DISTILL_DRIVER"  # in the environment of what this process starts
KILL_SECONDS = 8.0  # from a signal until a driver that does not end by itself is killed
END_SECONDS = 5.0  # that the last processes may take to be killed


class _Supervisor:
    """The reaper of this process, as long as a `supervised` block is open."""

    def __init__(self, kill_seconds: float) -> None:
        self.mark, self._is_ending = secrets.token_hex(16), False
        shared = () if _signal_line is None else (_signal_line,)
        command = [sys.executable, "-P", reaper.__file__, str(os.getpid())]
        self._process = subprocess.Popen(
            [*command, f"{VARIABLE}={self.mark}", f"{kill_seconds:g}", *map(str, shared)],
            pass_fds=shared,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def report_signal(self, number: int, *, until_exit: bool) -> None:
        """Limit the time until the block, or this process, ends."""
        self._is_ending = until_exit
        self._send(number)

    def report_unwound(self) -> None:
        """Remove the limit: the block that had to end has ended, and this process goes on."""
        if not self._is_ending:
            self._send(reaper.UNWOUND)

    def finish(self) -> None:
        """Kill what is left of our processes; if this process is ending, once it has ended."""
        if self._is_ending:
            return
        self._send(reaper.DONE)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _send(self, byte: int) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it was killed: nothing is left to report to
            os.write(self._process.stdin.fileno(), bytes([byte]))


@contextmanager
def supervised(kill_seconds: float = KILL_SECONDS) -> Iterator[None]:
    """Kill the processes started in `marked` blocks at the end of this block or of this process.

    Blocks may be nested; the outermost one counts.

    Args:
        kill_seconds: from a signal until this process is killed if it does not end by itself.
    """
    global _supervisor, _depth
    with _lock:
        _supervisor = _supervisor or _Supervisor(kill_seconds)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            ended = _supervisor if _depth == 0 else None
            _supervisor = None if _depth == 0 else _supervisor
        if ended is not None:
            ended.finish()


@contextmanager
def marked() -> Iterator[None]:
    """Mark the processes that are started in the block as ours, in a `supervised` block.

    Blocks of several threads may overlap; the mark is there from the first to the last of them.
    """
    global _marked, _unmarked
    if (supervisor := _supervisor) is None:
        yield
        return
    with _lock:
        if _marked == 0:
            _unmarked = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = supervisor.mark
        _marked += 1
    try:
        yield
    finally:
        with _lock:
            _marked -= 1
            if _marked == 0:
                del os.environ[VARIABLE]
                if _unmarked is not None:
                    os.environ[VARIABLE] = _unmarked


def share_signal_line(descriptor: int | None) -> None:
    """Let a reaper that is started later see signals that this process cannot read.

    Args:
        descriptor: of the socket on which signals arrive; None: there is none any more.
    """
    global _signal_line
    _signal_line = descriptor


def report_signal(number: int, *, until_exit: bool) -> None:
    """Kill this process if it takes too long to end after a signal, if it is supervised.

    Args:
        number: of the signal.
        until_exit: the process itself has to end, and not only the supervised block.
    """
    if _supervisor is not None:
        _supervisor.report_signal(number, until_exit=until_exit)


def report_unwound() -> None:
    """Let this process go on after a signal, unless the signal has to end the process itself."""
    if _supervisor is not None:
        _supervisor.report_unwound()


_lock = threading.Lock()
_supervisor: _Supervisor | None = None
_depth = 0
_marked = 0  # open blocks
_unmarked: str | None = None  # value of the variable outside them
_signal_line: int | None = None
