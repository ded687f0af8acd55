"""Several decoders at once: processes that decode, each behind a thread that waits for it.

A process, not a thread: of a small image Pillow computes most while it holds the interpreter. Not
`multiprocessing`: its children run the caller's main module again, its daemons may have none, and
they outlive a parent that was killed. Shared memory has no name, so nobody has to remove it.

Axes: n images, S side in pixels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pipe
from queue import SimpleQueue

import numpy as np
import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.data.decoding.rows import ADDRESS, map_images
from distill_core.errors import ClusterError, ConfigError
from distill_core.progress import Progress

VARIABLE = "DISTILL_DECODERS"  # processes that decode for each worker; 1: the worker does it itself
MOST = 16  # unless the variable says more: one GPU hardly uses what 16 CPUs decode
SPAN = 1024  # neighbours that one decoder reads: of a row group, few decoders need images
SHARED_BYTES = 8 * 2**20  # of each decoder
RUN = "from distill_core.data.decoding.rows import serve; serve({}, {})"


def default_decoders() -> int:
    """Return what the environment says, else the CPUs that this process may use.

    Raises:
        ConfigError: the environment says something that is no count.
    """
    said = os.environ.get(VARIABLE, "")
    if not said:
        return min(MOST, usable_cpus())
    if not said.isdecimal() or int(said) < 1:
        raise ConfigError(f"{VARIABLE}: {said!r}, expected 1 or more. Correct it, or unset it.")
    return int(said)


def usable_cpus() -> int:
    """Return how many CPUs this process may use, quotas of its container aside."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Decoders:
    """Processes that decode images of one dataset; closed, collected or at exit they end.

    Several threads may read at the same time; they share the processes.

    Args:
        config: of the dataset.
        count: processes.
    """

    def __init__(self, config: DataConfig, count: int) -> None:
        self._count, self._idle = count, SimpleQueue[_Decoder]()
        self._all: list[_Decoder] = []
        self._end = weakref.finalize(self, _stop, self._all)
        try:
            for _ in range(count):
                self._all.append(_Decoder(config))
                self._idle.put(self._all[-1])
        except BaseException:  # an interrupt too: no process may stay behind
            self.close()
            raise

    def read(
        self, rows: pa.Table, order: np.ndarray, out: np.ndarray, *, progress: Progress
    ) -> None:
        """Decode every row into its place.

        Args:
            rows: (n) of the index.
            order: (n,) a permutation: how the images lie in their files.
            out: (n, 3, S, S) uint8, written.
            progress: told after every span, in order.

        Raises:
            DataError: the first image, in that order, that is gone or not the one ingested.
            ClusterError: a decoder's process was lost.
        """
        rows, threads = rows.select(ADDRESS), ThreadPoolExecutor(self._count)
        size = max(1, min(SPAN, -(-len(order) // self._count)))
        spans = [order[start : start + size] for start in range(0, len(order), size)]
        done = 0
        try:
            for count in threads.map(lambda places: self._span(rows, places, out), spans):
                done += count
                progress(done, len(order))
        except Exception as error:  # of an image: the processes are as good as before
            if isinstance(error, ClusterError):
                self.close()
            raise
        except BaseException:  # an interrupt does not wait for them
            self.close()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Return whether these were not closed yet, by hand or because one was lost."""
        return self._end.alive

    def close(self) -> None:
        """End the processes now; twice is fine."""
        self._end()

    def _span(self, rows: pa.Table, places: np.ndarray, out: np.ndarray) -> int:
        decoder = self._idle.get()
        try:
            decoder.read(rows, places, out)
        finally:
            self._idle.put(decoder)
        return len(places)


class _Decoder:
    """One process. Its shared memory has two halves: one is filled while the other is emptied."""

    def __init__(self, config: DataConfig) -> None:
        self._half = max(1, SHARED_BYTES // (2 * 3 * config.side**2))  # images
        self._line, theirs = Pipe()
        shared = _nameless(2 * self._half * 3 * config.side**2)
        try:
            self._pixels = map_images(shared, 2 * self._half, config.side)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", RUN.format(theirs.fileno(), shared)],
                pass_fds=(theirs.fileno(), shared),
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        finally:
            os.close(shared)
            theirs.close()
        self._line.send((config, 2 * self._half))

    def read(self, rows: pa.Table, places: np.ndarray, out: np.ndarray) -> None:
        """Decode some rows, by number, into the same places; nobody else asks meanwhile."""
        parts = [places[n : n + self._half] for n in range(0, len(places), self._half)]
        self._ask(rows, parts[0], 0)
        for number, part in enumerate(parts):
            more = number + 1 < len(parts)
            if more:
                self._ask(rows, parts[number + 1], (number + 1) % 2)
            if error := self._answer():
                if more:
                    self._answer()  # else the next reader would take it for its own
                raise error
            first = number % 2 * self._half
            out[part] = self._pixels[first : first + len(part)]

    def _ask(self, rows: pa.Table, places: np.ndarray, half: int) -> None:
        with self._lost_is_said():
            self._line.send((rows.take(pa.array(places)), half * self._half))

    def _answer(self) -> Exception | None:
        with self._lost_is_said():
            said: Exception | None = self._line.recv()
            return said

    @contextmanager
    def _lost_is_said(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise ClusterError(
                f"a process that decodes images ended with exit code {self.process.wait()}. "
                f"If memory ran out, set {VARIABLE} to fewer of them."
            ) from error


def _stop(decoders: list[_Decoder]) -> None:
    for decoder in decoders:
        decoder.process.kill()
    for decoder in decoders:
        decoder.process.wait()
    decoders.clear()


def _environment() -> dict[str, str]:
    """Return the environment of a decoder: it imports what we import, and has one thread."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _nameless(size: int) -> int:
    """Return the descriptor of memory to share that goes with its last user."""
    if hasattr(os, "memfd_create"):  # not on macOS
        memory = os.memfd_create("pixels")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, size)
    return memory
