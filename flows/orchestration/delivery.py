"""Reports of Prefect from its own threads: a file for its log, and a limit for its last messages.

Prefect sends logs and events to its server from background threads. While the server is away, it
prints each event that it could not send on the terminal, and at the end of the process it would
try each of them again, for minutes.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

LOGGERS = ("prefect", "prefect._internal", "EventsWorker", "APILogWorker")
DELIVERY_SECONDS = 5.0  # for what is left to send at the end


class PrefectLog:
    """The file that takes what Prefect and its server report in this process."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="distill-prefect-", suffix=".log")
        os.close(descriptor)
        self.path = Path(name)  # of this user alone
        self.keep = False  # after a problem

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive Prefect's warnings during the block; remove the file if there was no problem."""
        from prefect.logging.configuration import ensure_logging_setup

        ensure_logging_setup()  # later, it would replace our handler
        handler = logging.FileHandler(self.path, encoding="utf-8")
        handler.setLevel(logging.WARNING)
        before, logging.raiseExceptions = logging.raiseExceptions, False  # Prefect would print
        for name in LOGGERS:
            logging.getLogger(name).addHandler(handler)
        try:
            yield
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(handler)
            handler.close()
            logging.raiseExceptions = before
            if not self.keep:
                self.path.unlink(missing_ok=True)


@contextmanager
def delivering(seconds: float = DELIVERY_SECONDS) -> Iterator[None]:
    """At the end of the block, let Prefect send what it holds; what takes longer is lost."""
    try:
        yield
    finally:
        _deliver(seconds)


def _deliver(seconds: float) -> None:
    from prefect.logging.handlers import APILogWorker

    services = tuple(cast("Any", APILogWorker)._instances.values())
    with suppress(RuntimeError):  # the loop of one has ended
        concurrent.futures.wait([service._drain() for service in services], timeout=seconds)
        for service in services:
            # The end of the process would wait until the service has ended by itself.
            service._loop.call_soon_threadsafe(service._done_event.set)
