"""Calls that nobody waits for: a store, server or terminal that hangs must not delay a stage."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flows import terminal

SIZE = 1000  # calls that may wait
CLOSE_SECONDS = 10.0  # for the calls that wait at the end
Warn = Callable[[str], object]


class Background:
    """Makes calls one after another in a thread of its own.

    A call that raises is followed by a warning, the first time for each kind of error, and by the
    next call. Calls that find the queue full are dropped.

    Args:
        name: of what is called, for warnings.
        warn: receives warnings.
        size: number of calls that may wait.
    """

    def __init__(self, name: str, *, warn: Warn = terminal.warn, size: int = SIZE) -> None:
        self._warnings = Warnings(name, warn)
        self._queue: queue.Queue[tuple[contextvars.Context, Callable[[], object]]]
        self._queue = queue.Queue(size)
        self._closing, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Make a call later, in the present context, and return at once."""
        with self._lock:
            if self._closing.is_set():
                return
            if not self._thread.is_alive():
                self._thread.start()
        try:
            self._queue.put_nowait((contextvars.copy_context(), lambda: function(*arguments)))
        except queue.Full:
            self._warnings.report(TimeoutError("it is too slow, and loses what it should record"))

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait for the calls that were made, as long as that does not take too long."""
        with self._lock:
            self._closing.set()
        if not self._thread.is_alive():
            return
        with suppress(queue.Full):
            self._queue.put((contextvars.copy_context(), lambda: None), timeout=seconds)
        self._thread.join(seconds)

    def _run(self) -> None:
        while not (self._closing.is_set() and self._queue.empty()):
            context, function = self._queue.get()
            try:
                context.run(function)
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the stage
                self._warnings.report(error)


class Warnings:
    """Passes on one warning for each kind of error."""

    def __init__(self, name: str, warn: Warn = terminal.warn) -> None:
        self._name, self._warn, self._kinds = name, warn, set[type[Exception]]()

    def report(self, error: Exception) -> None:
        """Warn, if it is the first error of its kind."""
        if type(error) not in self._kinds:
            self._kinds.add(type(error))
            text = f"{type(error).__name__}: {error}".rstrip(": .")
            self._warn(f"{self._name}: {text}. The stages are not affected.")


@contextmanager
def background(name: str, *, warn: Warn = terminal.warn) -> Iterator[Background]:
    """Yield a thread for calls, and wait for them at the end, for a limited time."""
    calls = Background(name, warn=warn)
    try:
        yield calls
    finally:
        calls.close()
