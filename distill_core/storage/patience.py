"""Waiting for a store that is away, beyond what its client waits by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from distill_core.errors import StorageError
from distill_core.progress import Notice, ignore_notice

T = TypeVar("T")

OUTAGE_SECONDS = 1800.0
FIRST_SECONDS = 1.0
MOST_SECONDS = 60.0  # between two attempts


@dataclass(frozen=True)
class Patience:
    """How a call to a store is repeated while the store is away; delays double up to a minute."""

    seconds: float = OUTAGE_SECONDS  # from the first attempt on; 0: one attempt
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    # Returns 0 to 1; spreads the attempts of machines that failed together.
    spread: Callable[[], float] = random.random

    def repeat(self, call: Callable[[], T], notice: Notice = ignore_notice) -> T:
        """Return the value of a call, which is repeated after errors that may be temporary.

        Args:
            call: has the same effect once or several times.
            notice: receives a sentence when the waiting begins, and one when it ends.

        Raises:
            StorageError: the store refuses permanently, or was away for too long.
        """
        started, delay, waited = self.clock(), FIRST_SECONDS, False
        while True:
            try:
                value = call()
            except StorageError as error:
                if not error.retryable or self.clock() - started + delay > self.seconds:
                    raise
                if not waited:
                    notice(f"{error} Waiting up to {self.seconds:.0f} s for the store.")
            else:
                if waited:
                    notice(f"The store answers again, after {self.clock() - started:.0f} s.")
                return value
            waited = True
            self.sleep(delay * (1 + self.spread()) / 2)
            delay = min(2 * delay, MOST_SECONDS)
