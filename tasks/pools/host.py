"""The host of a worker in any process: builds it once, runs its jobs, reports its progress."""

from __future__ import annotations

import contextvars
import importlib
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from distill_core.errors import OutOfMemoryError
from distill_core.redaction import sanitised
from tasks.jobs import Job, Receipt, Worker, WorkerSpec

HOST_ALLOCATOR = "DefaultCPUAllocator"  # of torch, in its message that memory ran out
RECEIPT_BYTES = 10_000  # most that is sent through Ray or a pipe; the marker has everything
JobProgress = tuple[str, int, int]  # (job key, units done, units in total)


class Host:
    """Holds one worker. `run` and `ready` are called in turn, `peek` at any time."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._worker: Worker | None = None
        self._key: str | None = None

    def ready(self) -> None:
        """Build the worker unless it is built."""
        if self._worker is None:
            self._worker = build(self._spec)

    def run(self, job: Job[Any]) -> Receipt:
        """Run one job and measure its time, including storage.

        Raises:
            OutOfMemoryError: the device or the host is full.
            Exception: anything else that the worker raises.
        """
        self.ready()
        assert self._worker is not None
        self._key, since = job.key, time.perf_counter()
        try:
            with _translated_out_of_memory(job):
                receipt = self._worker.run(job)
            return _without_large_summary(replace(receipt, seconds=time.perf_counter() - since))
        finally:
            self._key = None

    def peek(self) -> JobProgress | None:
        """Return the progress of the running job; None without a job or before its first step."""
        peek: Callable[[], tuple[int, int] | None] | None = getattr(self._worker, "peek", None)
        key = self._key
        progress = peek() if key is not None and peek is not None else None
        if key is None or progress is None or key != self._key or progress[1] <= 0:
            return None
        return key, *progress


class ErrorCapture:
    """Catches the error of a worker, so that it is reported and does not end the process.

    Interrupts are not caught: they are meant for the process.
    """

    error: Exception | None = None
    traceback = ""

    def __enter__(self) -> ErrorCapture:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.error = error
        self.traceback = sanitised("".join(traceback.format_exception(kind, error, trace)))
        return True


def build(spec: WorkerSpec) -> Worker:
    """Import the class of a worker and construct it."""
    module, _, name = spec.factory.partition(":")
    factory: Callable[..., Worker] = getattr(importlib.import_module(module), name)
    return factory(**spec.kwargs)


def portable(error: Exception) -> Exception:
    """Return an exception that can be pickled: the error, or one with its type and message."""
    with ErrorCapture() as captured:
        pickle.loads(pickle.dumps(error))
    return error if captured.error is None else RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def reporting_progress(
    peek: Callable[[], JobProgress | None],
    report: Callable[[str, int, int], Any],
    *,
    seconds: float,
) -> Iterator[None]:
    """Report progress at an interval, from a thread of its own, while the block runs."""
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(seconds):
            if (progress := peek()) is not None:
                report(*progress)

    # The thread gets the context, so that logs of `report` belong to the caller's flow run.
    thread = threading.Thread(target=partial(contextvars.copy_context().run, sample), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _translated_out_of_memory(job: Job[Any]) -> Iterator[None]:
    """Turn the error of a full device or host into our own, which any driver can read."""
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they refer to the tensors on the device
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutOfMemoryError(f"{job.shard}: {text}") from error


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, of arrays and tables, or of torch's on a device or host."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return type(error) is RuntimeError and HOST_ALLOCATOR in str(error)


def _without_large_summary(receipt: Receipt) -> Receipt:
    if len(pickle.dumps(receipt)) > RECEIPT_BYTES:
        return replace(receipt, summary={})
    return receipt
