"""How bytes move: one backend for local disk, one for everything fsspec knows.

Backends raise what their libraries raise; `store.py` turns that into our own errors.

Two promises differ from plain fsspec. Nothing partial ever stands at a final name: local files
are written to a hidden sibling first, objects go up in one PUT. And a conditional create has
exactly one winner: a hard link on local disk, ``If-None-Match`` in an object store.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from distill_core.storage.error_hints import code_of
from distill_core.storage.filesystems import loaded_errors, open_filesystem
from distill_core.storage.listing import PARTIAL, Lists, ListsDisk, ListsObjects

MAX_CREATE_BYTES = 64 * 2**20  # s3fs goes multipart at 100 MiB, where some stores ignore conditions

# fsspec's memory file system checks and writes in two steps, and its readers share one cursor.
_MEMORY_LOCK = threading.RLock()

# Client libraries whose errors are not OSErrors. Looked up when something fails, so that none of
# them has to be installed.
FOREIGN_ERRORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "botocore.exceptions": ("BotoCoreError", "ClientError"),
        "aiohttp.client_exceptions": ("ClientError",),
    }
)


class Backend(Lists, Protocol):
    """What a store needs; paths are relative to its root."""

    def read(self, path: str) -> bytes:
        """Return a whole object; FileNotFoundError when there is none."""

    def is_file(self, path: str) -> bool:
        """Return whether an object stands there."""

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is a folder) of everything directly in a folder, with one list call."""

    def put(self, path: str, data: bytes) -> None:
        """Write a whole object in one move."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole object if there is none yet; True for the one writer that did.

        Raises:
            NotImplementedError: the store knows no conditional create.
        """

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is fine."""


@dataclass(frozen=True)
class LocalBackend(ListsDisk):
    """A folder on a disk that supports hard links."""

    root: str

    def read(self, path: str) -> bytes:
        """Return a whole file; FileNotFoundError when there is none."""
        try:
            return self._full(path).read_bytes()
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(path) from error

    def is_file(self, path: str) -> bool:
        """Return whether a file stands there."""
        try:
            return stat.S_ISREG(os.stat(self._full(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is a folder) of everything directly in a folder."""
        try:
            with os.scandir(self._full(folder)) as found:
                yield from ((e.name, e.is_dir()) for e in found if not e.name.endswith(PARTIAL))
        except (FileNotFoundError, NotADirectoryError):
            return

    def put(self, path: str, data: bytes) -> None:
        """Write a sibling, then rename it over the final name."""
        with self._partial(path, data) as partial:
            os.replace(partial, self._full(path))

    def create(self, path: str, data: bytes) -> bool:
        """Write a sibling, then link it to the final name, which fails if that exists."""
        with self._partial(path, data) as partial:
            try:
                os.link(partial, self._full(path))
            except FileExistsError:
                return False
        return True

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is fine."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self._full(path).unlink()

    def _full(self, path: str) -> Path:
        return Path(self.root, path)

    @contextmanager
    def _partial(self, path: str, data: bytes) -> Iterator[Path]:
        """Hold a complete hidden sibling, on disk before it gets its final name."""
        final = self._full(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{secrets.token_hex(8)}{PARTIAL}")
        try:
            with partial.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class ObjectBackend(ListsObjects):
    """A bucket and prefix, or any other fsspec file system that publishes whole objects."""

    fs: Any  # fsspec has no types
    root: str
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def read(self, path: str) -> bytes:
        """Return a whole object; FileNotFoundError when there is none."""
        with self.lock:
            return bytes(self.fs.cat_file(self._full(path)))

    def is_file(self, path: str) -> bool:
        """Return whether an object stands there; a common prefix is none."""
        # Not fs.isfile: it answers False to every error, also to a lost connection.
        with self.lock:
            try:
                return bool(self.fs.info(self._full(path))["type"] == "file")
            except FileNotFoundError:
                return False

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is a folder) of everything directly below a prefix."""
        full = self._full(folder).rstrip("/")
        with self.lock:
            try:
                found = self.fs.ls(full, detail=True, refresh=True)
            except FileNotFoundError:
                return
        for entry in found:
            parent, _, name = entry["name"].rstrip("/").rpartition("/")
            if name and parent.lstrip("/") == full.lstrip("/"):
                yield name, entry["type"] == "directory"

    def put(self, path: str, data: bytes) -> None:
        """Upload; an object store publishes it when it is complete."""
        with self.lock:
            self.fs.pipe_file(self._full(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Upload in one conditional PUT."""
        if len(data) > MAX_CREATE_BYTES:
            raise ValueError(f"{path}: {len(data)} bytes are too many for a conditional create")
        with self.lock:
            try:
                self.fs.pipe_file(self._full(path), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # Ceph words its refusal so that s3fs does not recognise it.
                if error.errno == errno.EINVAL and self.is_file(path):
                    return False
                if code_of(error) == "NotImplemented":
                    raise NotImplementedError(path) from error
                raise
        return True

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is fine."""
        with self.lock:
            try:
                self.fs.rm_file(self._full(path))
            except FileNotFoundError:
                return

    def _full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"


def open_backend(url: str) -> Backend:
    """Return the backend of a normalised URL, opened once per process: clients survive no fork.

    Raises:
        ImportError, ValueError: no installed file system knows the protocol.
    """
    return _open(url, os.getpid())


@lru_cache(maxsize=64)
def _open(url: str, _pid: int) -> Backend:
    if "://" not in url:
        return LocalBackend(url)
    fs, root = open_filesystem(url)
    return ObjectBackend(fs, root, _MEMORY_LOCK if url.startswith("memory:") else nullcontext())


def foreign_errors() -> tuple[type[Exception], ...]:
    """Return what a backend may raise: OSError, and the errors of client libraries in use."""
    return (OSError, *loaded_errors(FOREIGN_ERRORS))
