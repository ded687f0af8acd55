"""Waiting for a store that is away, beyond what its client waits by itself."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from distill_core.errors import StorageError
from distill_core.progress import Notice, ignore_notice
from distill_core.storage.delays import OUTAGE_CAP, growing_delay

T = TypeVar("T")

OUTAGE_SECONDS = 1800.0


@dataclass(frozen=True)
class Patience:
    """How a call to a store is repeated while the store is away; delays grow up to a minute."""

    seconds: float = OUTAGE_SECONDS  # from the first attempt on; 0: one attempt
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def repeat(self, call: Callable[[], T], notice: Notice = ignore_notice) -> T:
        """Return the value of a call, which is repeated after errors that may be temporary.

        Args:
            call: has the same effect once or several times.
            notice: receives a sentence when the waiting begins, and one when it ends.

        Raises:
            StorageError: the store refuses permanently, or was away for too long.
        """
        started = self.clock()
        process = f"{socket.gethostname()} {os.getpid()}"
        for failures in itertools.count():
            try:
                value = call()
            except StorageError as error:
                delay = growing_delay(failures + 1, process, cap=OUTAGE_CAP)
                if not error.retryable or self.clock() - started + delay > self.seconds:
                    raise
                if not failures:
                    notice(f"{error} Waiting up to {self.seconds:.0f} s for the store.")
                self.sleep(delay)
            else:
                if failures:
                    notice(f"The store answers again, after {self.clock() - started:.0f} s.")
                return value
        raise AssertionError("unreachable")
