"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
WAIT_SECONDS = 240  # a bound that keeps a broken test from hanging; nothing is measured with it


def wait_until(look: Callable[[], T], what: str, seconds: float = WAIT_SECONDS) -> T:
    """Call `look` until it returns something true, and return that.

    Args:
        look: returns what is waited for.
        what: it is, for the message.
        seconds: to wait at most.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return found
