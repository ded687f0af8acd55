"""A pool of decoding processes; each is served by one thread of the parent.

Processes rather than threads, because Pillow holds the GIL during most of the work on a small
image. Not `multiprocessing`, because its children import the caller's main module again, daemonic
processes may not have children, and they outlive a parent that was killed. The shared memory is
anonymous, so it needs no cleanup.

Axes: n images, S side in pixels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from queue import SimpleQueue

import numpy as np
import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.data.decoding.crops import Rendition
from distill_core.data.decoding.fetch import ADDRESS
from distill_core.data.decoding.rows import map_images
from distill_core.errors import ClusterError, ConfigError
from distill_core.exit_codes import describe_exit
from distill_core.machine_share import cpu_share
from distill_core.progress import Progress
from distill_core.storage.requests import requests_of_process

VARIABLE = "DISTILL_DECODERS"  # decoding processes per worker; 1: the worker decodes itself
SPAN = 1024  # neighbouring rows per decoder, so that few decoders read the same row group
# Images of one request at least: it costs 0.6 ms, as much as decoding three images of 64 pixels. A
# small batch therefore does not occupy all decoders; the others work on the next one.
MIN_SPAN = 16
SHARED_BYTES = 8 * 2**20  # of each decoder
RUN = "from distill_core.data.decoding.rows import serve; serve({}, {}, {})"


def default_decoders() -> int:
    """Return the value of `VARIABLE`, or else this worker's part of the CPUs of its machine.

    Raises:
        ConfigError: the variable is not a positive integer.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return cpu_share()
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{VARIABLE}: {text!r}, expected 1 or more. Correct it, or unset it.")
    return int(text)


class Decoders:
    """Processes that decode images of one dataset, until `close`, collection or exit.

    Several threads may read at the same time; they share the processes, first come, first served.

    Args:
        config: of the dataset.
        count: number of processes.
        store: address of the store of its index; None: it has none.
    """

    def __init__(self, config: DataConfig, count: int, store: str | None = None) -> None:
        self._count, self._idle = count, SimpleQueue[_Decoder]()
        self._all: list[_Decoder] = []
        self._threads = ThreadPoolExecutor(count)
        self._end = weakref.finalize(self, _stop, self._all, self._threads)
        try:
            for _ in range(count):
                self._all.append(_Decoder(config, store))
                self._idle.put(self._all[-1])
        except BaseException:  # including an interrupt: no process may be left running
            self.close()
            raise

    def read(
        self,
        rows: pa.Table,
        order: np.ndarray,
        out: np.ndarray,
        *,
        rendition: Rendition,
        progress: Progress,
    ) -> None:
        """Decode every row into its position in `out`.

        Args:
            rows: (n) of the index.
            order: (n,) permutation that sorts the images as they lie in their files.
            out: (n, 3, S, S) uint8, written.
            rendition: of the n images.
            progress: called after every span, in order.

        Raises:
            DataError: an image is missing or not the one ingested; names the first in `order`.
            ClusterError: a decoding process was lost.
        """
        rows, size = rows.select(ADDRESS), span_size(len(order), self._count)
        spans = [order[start : start + size] for start in range(0, len(order), size)]
        pending, done = list[Future[int]](), 0
        try:
            for places in spans:
                request = _Request(rows, places, rendition)
                pending.append(self._submit(request, out))
            for future in pending:
                done += future.result()
                progress(done, len(order))
        except Exception as error:  # of an image: the processes are still usable
            if isinstance(error, ClusterError):
                self.close()
            raise
        except BaseException:  # an interrupt must not wait for them
            self.close()
            raise
        finally:
            for future in pending:
                future.cancel()
            wait(pending)  # none may write to `out` any more

    @property
    def alive(self) -> bool:
        """Return whether the pool is open; it closes when a process is lost."""
        return self._end.alive

    def close(self) -> None:
        """End the processes now; further calls have no effect."""
        self._end()

    def _submit(self, request: _Request, out: np.ndarray) -> Future[int]:
        try:
            return self._threads.submit(self._span, request, out)
        except RuntimeError as error:  # another thread has lost a process
            raise ClusterError("the processes that decode images have ended.") from error

    def _span(self, request: _Request, out: np.ndarray) -> int:
        decoder = self._idle.get()
        try:
            decoder.read(request, out)
        finally:
            self._idle.put(decoder)
        return len(request.places)


@dataclass(frozen=True)
class _Request:
    """Some of the rows that are read together."""

    rows: pa.Table  # all of them
    places: np.ndarray  # the numbers of those that are requested
    rendition: Rendition  # of all of them

    def part(self, first: int, count: int) -> _Request:
        """Return some of the rows that are requested."""
        return _Request(self.rows, self.places[first : first + count], self.rendition)


class _Decoder:
    """One process; it fills one half of its shared memory while the other half is read."""

    def __init__(self, config: DataConfig, store: str | None) -> None:
        self._half = max(1, SHARED_BYTES // (2 * 3 * config.side**2))  # images
        self._connection, theirs = Pipe()
        shared = _anonymous_memory(2 * self._half * 3 * config.side**2)
        try:
            self._pixels = map_images(shared, 2 * self._half, config.side)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", RUN.format(theirs.fileno(), shared, os.getpid())],
                pass_fds=(theirs.fileno(), shared),
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        finally:
            os.close(shared)
            theirs.close()
        self._connection.send((config, store, 2 * self._half))

    def read(self, request: _Request, out: np.ndarray) -> None:
        """Decode some rows, by number, into the same positions; one caller at a time."""
        half, count = self._half, len(request.places)
        parts = [request.part(n, half) for n in range(0, count, half)]
        self._request(parts[0], 0)
        for number, part in enumerate(parts):
            more = number + 1 < len(parts)
            if more:
                try:
                    self._request(parts[number + 1], (number + 1) % 2)
                except Exception:  # memory ran out, e.g.
                    self._answer()  # otherwise the next caller would receive this answer
                    raise
            if error := self._answer():
                if more:
                    self._answer()  # likewise
                raise error
            first = number % 2 * half
            out[part.places] = self._pixels[first : first + len(part.places)]

    def _request(self, part: _Request, half: int) -> None:
        rows, rendition = part.rows.take(pa.array(part.places)), part.rendition.rows(part.places)
        with self._translated():
            self._connection.send((rows, half * self._half, rendition))

    def _answer(self) -> Exception | None:
        with self._translated():
            raised: Exception | None
            raised, requests, traffic = self._connection.recv()
        requests_of_process.add(requests, traffic)
        return raised

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise ClusterError(
                f"a process that decodes images ended with {describe_exit(self.process.wait())}. "
                f"If memory ran out, set {VARIABLE} to a smaller number."
            ) from error


def span_size(images: int, decoders: int) -> int:
    """Return how many images one decoder gets at a time of so many that are read together."""
    return min(SPAN, max(MIN_SPAN, -(-images // decoders)))


def _stop(decoders: list[_Decoder], threads: ThreadPoolExecutor) -> None:
    for decoder in decoders:
        decoder.process.kill()
    for decoder in decoders:
        decoder.process.wait()
    decoders.clear()
    # Requests in the queue fail, now that no process answers. `cancel_futures` would take them out
    # of the queue, and `wait` is not notified of such: `read` would wait for ever.
    threads.shutdown(wait=False)


def _environment() -> dict[str, str]:
    """Return the environment of a decoder: our import path, and one thread."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _anonymous_memory(size: int) -> int:
    """Return a descriptor of anonymous memory, which is freed with its last user."""
    if hasattr(os, "memfd_create"):  # not on macOS
        memory = os.memfd_create("pixels")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, size)
    return memory
