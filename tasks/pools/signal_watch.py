"""A thread that limits the time from a signal to the end of a block or of the process.

Python runs its signal handlers in the main thread, between two instructions, so none runs while
that thread is inside a C function such as a connection to Ray. Python's own C handler, however,
writes the signal's number to a descriptor at once, and this thread reads it there.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tasks.pools import supervision

SECOND_SECONDS = 0.5  # a Ctrl-C this soon after the first is the same one, passed on by a parent
JOIN_SECONDS = 1.0
REPEATED = 0x80  # added to the number of a signal that the C handler has written as well


@dataclass(eq=False)
class Deadline:
    """The time limit of one block, which starts with the first of its signals."""

    numbers: frozenset[int]  # signals that end the block
    grace_seconds: float
    end: Callable[[int], Any]  # called with 128 + the number of the first signal
    notice: Callable[[signal.Signals], object] | None = None  # called once, with the first signal
    until_exit: bool = False  # the limit holds until the process ends
    number: int | None = None  # of the first signal
    expires: float | None = None  # monotonic time
    noticed: bool = False

    def start(self, number: int) -> None:
        """Start the time with the first signal; a signal handler may call this."""
        if self.number is None and number in self.numbers:
            self.expires = time.monotonic() + self.grace_seconds
            self.number = number

    def end_now(self) -> None:
        """End the process, if a signal has arrived."""
        if self.number is not None:
            self.expires = None
            self.end(128 + self.number)

    def end_at_exit(self) -> None:
        """End the process without the interpreter's finalisation, if a signal has arrived.

        No thread of ours could limit its time, and the destructors of large libraries take long.
        """
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # not read, closed, or None
                stream.flush()
        self.end_now()


class SignalWatch:
    """The thread that watches all open blocks; it runs while there is one."""

    def __init__(self) -> None:
        self._deadlines: list[Deadline] = []
        self._line: socket.socket | None = None  # to the thread
        self._read_end: socket.socket | None = None  # of the thread
        self._thread = threading.Thread()
        self._reads_c_handler = False
        self._first: float | None = None  # monotonic time of the first signal
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def watching(self, deadline: Deadline) -> Iterator[None]:
        """Limit the time of a block; only for the main thread."""
        if self._line is None:
            self._open()
        self._deadlines.append(deadline)
        if deadline.until_exit and self._read_end is not None:
            supervision.share_signal_line(self._read_end.fileno())
            # The first function that is registered is called last, after those of Ray and Prefect.
            atexit.register(deadline.end_at_exit)
        try:
            yield
        finally:
            if deadline.number is None or not deadline.until_exit:
                atexit.unregister(deadline.end_at_exit)
                self._deadlines.remove(deadline)
            if not self._deadlines:
                self._close()
                supervision.report_unwound()

    def report(self, number: int) -> None:
        """Start the time limits, from a signal handler."""
        for deadline in self._deadlines:
            deadline.start(number)
        if self._line is not None:
            with suppress(OSError):
                self._line.send(bytes([number | REPEATED * self._reads_c_handler]))

    def _open(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._line, self._read_end, self._first = ours, theirs, None
        previous = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
        self._reads_c_handler = previous == -1
        if not self._reads_c_handler:  # of an event loop in this thread, which needs it
            signal.set_wakeup_fd(previous)
        self._thread = threading.Thread(
            target=self._run, args=(theirs,), name="signals", daemon=True
        )
        self._thread.start()

    def _close(self) -> None:
        assert self._line is not None
        if self._reads_c_handler:
            present = signal.set_wakeup_fd(-1)
            if present not in (-1, self._line.fileno()):
                signal.set_wakeup_fd(present)
        supervision.share_signal_line(None)
        self._line.close()
        self._line = None
        self._thread.join(JOIN_SECONDS)  # it reports what arrived before

    def _forget(self) -> None:
        """Stop in a forked child, whose signals are not ours."""
        if self._line is not None and self._reads_c_handler:
            signal.set_wakeup_fd(-1)
        self._line, self._deadlines = None, []

    def _run(self, line: socket.socket) -> None:
        with line:
            while True:
                expiries = [d.expires for d in self._deadlines if d.expires is not None]
                wait = max(0.0, min(expiries) - time.monotonic()) if expiries else None
                if select.select([line], [], [], wait)[0]:
                    if not (data := line.recv(64)):
                        return
                    for byte in data:
                        self._arrived(byte)
                self._end_late_blocks()

    def _arrived(self, byte: int) -> None:
        """Start the time limits with the first signal; end the process with a second Ctrl-C."""
        number, now = byte & ~REPEATED, time.monotonic()
        ended = [deadline for deadline in self._deadlines if number in deadline.numbers]
        for deadline in ended:
            deadline.start(number)
            self._notify(deadline)
        if not ended:
            return
        if self._first is None:
            self._first = now
            _cancel_abort()
            supervision.report_signal(
                number, until_exit=any(deadline.until_exit for deadline in ended)
            )
        elif byte == signal.SIGINT and now - self._first >= SECOND_SECONDS:
            ended[0].end_now()

    def _notify(self, deadline: Deadline) -> None:
        """Call the notice from another thread: a terminal that blocks must not delay the end."""
        if deadline.notice is not None and not deadline.noticed and deadline.number is not None:
            deadline.noticed = True
            first = signal.Signals(deadline.number)
            threading.Thread(target=deadline.notice, args=(first,), daemon=True).start()

    def _end_late_blocks(self) -> None:
        for deadline in tuple(self._deadlines):
            if deadline.expires is not None and time.monotonic() >= deadline.expires:
                deadline.end_now()


def _cancel_abort() -> None:
    """Cancel the alarm with which Ray aborts the process three seconds after a SIGTERM.

    Ray's C++ handler is in place while Ray starts, until our handlers are restored.
    """
    if "ray" in sys.modules:
        signal.alarm(0)
