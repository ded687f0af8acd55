"""Signals that ask the process to end: what is being done unwinds, for a bounded time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_SECONDS = 8.0  # then the process ends without unwinding; what is committed stays whole
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def terminable(
    grace_seconds: float = GRACE_SECONDS, *, end: Callable[[int], Any] = os._exit
) -> Iterator[None]:
    """Let SIGTERM and SIGINT leave the block as an exception, and not take long about it.

    The first signal goes to whoever had handled it (Prefect raises its own exception, Python
    KeyboardInterrupt); SIGTERM without a handler becomes SystemExit(143). Later ones change
    nothing. Outside the main thread, where no handler can be set, nor does this.

    Args:
        grace_seconds: how long the block may take to unwind.
        end: called with 128 + the signal's number once the block took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    leave = _Leave(before, grace_seconds, end)
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        leave.dismiss()
        restore(before)


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Put back the handlers that a library replaces in the block, as `ray.init` does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        restore(before)


def restore(handlers: dict[signal.Signals, Any]) -> None:
    """Install handlers as `signal.getsignal` returned them; one that is not Python's stays away."""
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)


class _Leave:
    """Handles the first signal, and watches the time from then on."""

    def __init__(
        self, before: dict[signal.Signals, Any], grace_seconds: float, end: Callable[[int], Any]
    ) -> None:
        self._before, self._grace_seconds, self._end = before, grace_seconds, end
        self._timer: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._timer is not None:
            return
        self._timer = threading.Timer(self._grace_seconds, self._end, (128 + number,))
        self._timer.daemon = True
        self._timer.start()
        previous = self._before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)
        else:
            sys.exit(128 + number)

    def dismiss(self) -> None:
        """Stop watching: the block is left."""
        if self._timer is not None:
            self._timer.cancel()
