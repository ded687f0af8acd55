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

GRACE_SECONDS = 6.0  # then the process ends without unwinding; what is committed stays whole
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def terminable(
    grace_seconds: float = GRACE_SECONDS,
    *,
    to_the_end: bool = False,
    end: Callable[[int], Any] = os._exit,
) -> Iterator[None]:
    """Let SIGTERM and SIGINT leave the block as an exception, and not take long about it.

    The first signal goes to whoever had handled it (Prefect raises its own exception, Python
    KeyboardInterrupt); SIGTERM without a handler becomes SystemExit(143). Later ones change
    nothing. Should a library have made an error of its own of that exception, it is raised once
    more.

    Inside another block, where the process is ours, this goes in front of any handler. Otherwise a
    foreign handler is left alone: Prefect's engine acknowledges to be cancelled only while its own
    is installed. Outside the main thread nothing is set at all.

    Args:
        grace_seconds: how long the block may take to unwind.
        to_the_end: watch the time until the process has ended, not only until the block has.
        end: called with 128 + the signal's number once it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: handler for n in SIGNALS if _ours(n, handler := signal.getsignal(n))}
    leave = _Leave(before, grace_seconds, end)
    for number in before:
        signal.signal(number, leave)
    _active.append(leave)
    try:
        with revealed():
            yield
    except Exception:
        leave.insist()
        raise
    finally:
        _active.remove(leave)
        if not to_the_end:
            leave.dismiss()
        restore(before)


@contextmanager
def revealed() -> Iterator[None]:
    """Raise what a signal raised in the block, where a library made an error of its own of it."""
    try:
        yield
    except Exception as error:
        if (hidden := _hidden_in(error)) is not None:
            raise hidden from None
        raise


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


def _ours(number: signal.Signals, handler: Any) -> bool:
    """Return whether we may handle a signal ourselves."""
    if handler in (None, signal.SIG_IGN):
        return False
    return bool(_active) or handler in (signal.SIG_DFL, signal.default_int_handler)


def _hidden_in(error: BaseException | None) -> BaseException | None:
    """Return the exception of a signal that became an error."""
    while isinstance(error, Exception):
        error = error.__cause__ or error.__context__
    return error


class _Leave:
    """Handles the first signal, and watches the time from then on."""

    def __init__(
        self, before: dict[signal.Signals, Any], grace_seconds: float, end: Callable[[int], Any]
    ) -> None:
        self._before, self._grace_seconds, self._end = before, grace_seconds, end
        self._timer: threading.Timer | None = None
        self._number: int | None = None  # of the first signal
        self._raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for leave in _active:  # the outer ones may never be called: Prefect's handler is in between
            leave.note(number)
        if not self._raised:
            self._raised = True
            self._hand_on(number, frame)

    def note(self, number: int) -> None:
        """Begin to watch the time."""
        if self._number is None:
            self._number = number
            self._timer = threading.Timer(self._grace_seconds, self._end, (128 + number,))
            self._timer.daemon = True
            self._timer.start()

    def insist(self) -> None:
        """Raise again what the signal raised, if there was one."""
        if self._number not in self._before:
            return
        previous = self._before[signal.Signals(self._number)]
        if isinstance(previous, _Leave):
            previous.insist()
        else:
            self._hand_on(self._number, None)

    def dismiss(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        previous = self._before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)
        else:
            sys.exit(128 + number)


_active: list[_Leave] = []  # of the blocks that are open, the outermost first
