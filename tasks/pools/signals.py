"""Signals that end the process: open blocks unwind, within a bounded time.

The limit holds even while the main thread is in a C function, where no Python handler runs:
`tasks.pools.signal_watch` learns of a signal from Python's own C handler.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tasks.pools.signal_watch import Deadline, SignalWatch

GRACE_SECONDS = 6.0  # then the process ends without unwinding; committed shards stay complete
SIGNALS = (signal.SIGTERM, signal.SIGINT)
Notice = Callable[[signal.Signals], object]


@contextmanager
def terminable(
    grace_seconds: float = GRACE_SECONDS,
    *,
    until_exit: bool = False,
    end: Callable[[int], Any] = os._exit,
    notice: Notice | None = None,
) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into an exception that leaves the block within a bounded time.

    The first signal goes to the previous handler (Prefect raises its own exception, Python
    KeyboardInterrupt); SIGTERM without a handler becomes SystemExit(143). Later signals do not
    disturb the unwinding, but a second Ctrl-C ends the process at once. If a library turned the
    exception into an error of its own, the exception is raised again.

    Inside another such block, any handler is replaced. Otherwise the handlers of other libraries
    stay: Prefect's engine acknowledges a cancellation only while its own handler is installed.
    Outside the main thread no handler is set.

    Args:
        grace_seconds: how long the block may take to unwind.
        until_exit: limit the time until the process ends, and not only until the block does.
        end: called with 128 + the signal's number when the time is over.
        notice: called once with the first signal, from a thread of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: old for n in SIGNALS if _may_replace(n, old := signal.getsignal(n))}
    deadline = Deadline(frozenset(before), grace_seconds, end, notice, until_exit)
    with _watch.watching(deadline):
        handler = _SignalHandler(before, deadline)
        for number in before:
            signal.signal(number, handler)
        _active.append(handler)
        try:
            with unwrapped_signals():
                yield
        except (Exception, SystemExit) as error:
            handler.raise_again(error)
            raise
        finally:
            _active.remove(handler)
            restore(before)


@contextmanager
def unwrapped_signals() -> Iterator[None]:
    """Raise a signal's exception again where a library turned it into an error of its own."""
    try:
        yield
    except Exception as error:
        if (original := _signal_exception_in(error)) is not None:
            raise original from None
        raise


@contextmanager
def preserved_handlers() -> Iterator[None]:
    """Restore the handlers that a library replaces in the block, as `ray.init` does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        restore(before)


def restore(handlers: dict[signal.Signals, Any]) -> None:
    """Install handlers from `signal.getsignal`; None, a handler from outside Python, is skipped."""
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)


def _may_replace(number: signal.Signals, handler: Any) -> bool:
    """Return whether our handler may replace the present one."""
    if handler in (None, signal.SIG_IGN):
        return False
    return bool(_active) or handler in (signal.SIG_DFL, signal.default_int_handler)


def _signal_exception_in(error: BaseException | None) -> BaseException | None:
    """Return the exception of a signal from the causes of an error, if there is one."""
    while isinstance(error, Exception):
        error = error.__cause__ or error.__context__
    return error


class _SignalHandler:
    """Passes the first signal on to the previous handler."""

    def __init__(self, before: dict[signal.Signals, Any], deadline: Deadline) -> None:
        self._before, self._deadline = before, deadline
        self._raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _watch.report(number)  # in case another library has taken the watch's descriptor
        if not self._raised:
            self._raised = True
            self._call_previous(number, frame)

    def raise_again(self, error: BaseException) -> None:
        """Raise the exception of the signal, if there was one, in place of another error."""
        number = self._deadline.number
        if number is None or (isinstance(error, SystemExit) and error.code == 128 + number):
            return
        previous = self._before[signal.Signals(number)]
        if isinstance(previous, _SignalHandler):
            previous.raise_again(error)
        else:
            self._call_previous(number, None)

    def _call_previous(self, number: int, frame: FrameType | None) -> None:
        previous = self._before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)
        else:
            sys.exit(128 + number)


_active: list[_SignalHandler] = []  # of the open blocks, outermost first
_watch = SignalWatch()
