"""What surrounds a worker wherever it runs: builds it once, remembers its job, shows progress."""

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
from tasks.jobs import Job, Receipt, Worker, WorkerSpec

RECEIPT_BYTES = 10_000  # what goes through Ray or a pipe stays small; the marker has it all
Peek = tuple[str, int, int]  # (job key, units done, units in total)


class Host:
    """Holds one worker. `run` and `ready` come one after the other, `peek` at any time."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._worker: Worker | None = None
        self._key: str | None = None

    def ready(self) -> None:
        """Build the worker unless it stands."""
        if self._worker is None:
            self._worker = build(self._spec)

    def run(self, job: Job[Any]) -> Receipt:
        """Run one job and time it, storage included.

        Raises what the worker raises; a full device is an `OutOfMemoryError` of ours.
        """
        self.ready()
        assert self._worker is not None
        self._key, since = job.key, time.perf_counter()
        try:
            with _full_device_named(job):
                receipt = self._worker.run(job)
            return _small(replace(receipt, seconds=time.perf_counter() - since))
        finally:
            self._key = None

    def peek(self) -> Peek | None:
        """Return how far the running job is; None when there is none, or nothing is known yet."""
        look: Callable[[], tuple[int, int] | None] | None = getattr(self._worker, "peek", None)
        key = self._key
        seen = look() if key is not None and look is not None else None
        if key is None or seen is None or key != self._key or seen[1] <= 0:
            return None
        return key, seen[0], seen[1]


class Catch:
    """Catches what a worker raises, for that is to be reported and not to end the process.

    Interrupts pass: they are meant for the process.
    """

    error: Exception | None = None
    traceback = ""

    def __enter__(self) -> Catch:
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
        self.traceback = "".join(traceback.format_exception(kind, error, trace))
        return True


def build(spec: WorkerSpec) -> Worker:
    """Import and construct a worker."""
    module, _, name = spec.factory.partition(":")
    factory: Callable[..., Worker] = getattr(importlib.import_module(module), name)
    return factory(**spec.kwargs)


def portable(error: Exception) -> Exception:
    """Return an exception that survives pickling: itself, or its type's name and message."""
    with Catch() as caught:
        pickle.loads(pickle.dumps(error))
    return error if caught.error is None else RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def sampled(
    peek: Callable[[], Peek | None], tell: Callable[[str, int, int], Any], *, seconds: float
) -> Iterator[None]:
    """Look at progress every so many seconds, from a thread of its own, while a block runs."""
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(seconds):
            if (seen := peek()) is not None:
                tell(*seen)

    # The context goes along: what `tell` logs belongs to the caller's flow run.
    thread = threading.Thread(target=partial(contextvars.copy_context().run, sample), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _full_device_named(job: Job[Any]) -> Iterator[None]:
    """Turn torch's error into ours, which a driver without torch can read."""
    try:
        yield
    except Exception as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what fills the device
        raise OutOfMemoryError(f"{job.shard}: {(str(error).splitlines() or [''])[0]}") from error


def _small(receipt: Receipt) -> Receipt:
    if len(pickle.dumps(receipt)) > RECEIPT_BYTES:
        return replace(receipt, summary={})
    return receipt
