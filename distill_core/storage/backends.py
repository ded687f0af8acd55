"""Backends of a store: one for local disks, one for every other file system of fsspec.

Backends raise the errors of their libraries, which `store.py` translates into our own.

They give three guarantees beyond plain fsspec. A final name never holds a partial object: local
files are written to a hidden sibling first, objects are uploaded in one PUT. A conditional create
has exactly one winner: by a hard link on most disks, by ``If-None-Match`` in a bucket. And a write
returns only after the size of the file, or the digest of the object, was compared with the data.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from distill_core.storage.exclusive import publish
from distill_core.storage.filesystems import loaded_errors, open_filesystem
from distill_core.storage.listing import PARTIAL, Lists, ListsDisk
from distill_core.storage.object_backend import ObjectBackend

# fsspec's memory file system checks and writes in two steps, and its readers share a cursor.
_MEMORY_LOCK = threading.RLock()

# Client libraries whose errors are not OSErrors; looked up on failure, so that none of them has to
# be installed.
FOREIGN_ERRORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "botocore.exceptions": ("BotoCoreError", "ClientError"),
        "aiohttp.client_exceptions": ("ClientError",),
    }
)


class Backend(Lists, Protocol):
    """The operations that a store needs; paths are relative to its root."""

    def read(self, path: str) -> bytes:
        """Return a whole object; FileNotFoundError if there is none."""

    def is_file(self, path: str) -> bool:
        """Return whether an object exists at a path."""

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is a folder) of everything directly in a folder, from one list call."""

    def put(self, path: str, data: bytes) -> None:
        """Write a whole object atomically."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole object if there is none; return True to the one writer that did.

        Raises:
            NotImplementedError: the store has no conditional create.
        """

    def delete(self, path: str) -> None:
        """Delete an object; a missing one is not an error."""


@dataclass(frozen=True)
class LocalBackend(ListsDisk):
    """A folder on a disk."""

    root: str

    def read(self, path: str) -> bytes:
        """Return a whole file; FileNotFoundError if there is none."""
        try:
            return self._full(path).read_bytes()
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(path) from error

    def is_file(self, path: str) -> bool:
        """Return whether a file exists at a path."""
        try:
            return stat.S_ISREG(os.stat(self._full(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is a folder) of everything directly in a folder."""
        try:
            with os.scandir(self._full(folder)) as entries:
                yield from ((e.name, e.is_dir()) for e in entries if not e.name.endswith(PARTIAL))
        except (FileNotFoundError, NotADirectoryError):
            return

    def put(self, path: str, data: bytes) -> None:
        """Write a sibling file and rename it to the final name."""
        with self._partial(path, data) as partial:
            os.replace(partial, self._full(path))

    def create(self, path: str, data: bytes) -> bool:
        """Write a sibling file and give it the final name, which fails if that exists."""
        with self._partial(path, data) as partial:
            return publish(partial, self._full(path))

    def delete(self, path: str) -> None:
        """Delete a file; a missing one is not an error."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self._full(path).unlink()

    def _full(self, path: str) -> Path:
        return Path(self.root, path)

    @contextmanager
    def _partial(self, path: str, data: bytes) -> Iterator[Path]:
        """Write a hidden sibling file, synced to disk, and delete it at the end of the block."""
        final = self._full(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{secrets.token_hex(8)}{PARTIAL}")
        try:
            with partial.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                _check_size(os.fstat(stream.fileno()).st_size, len(data))
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def open_backend(url: str) -> Backend:
    """Return the backend of a normalised URL, opened once per process, as clients survive no fork.

    Raises:
        ImportError, ValueError: no installed file system supports the protocol.
    """
    return _open(url, os.getpid())


@lru_cache(maxsize=64)
def _open(url: str, _pid: int) -> Backend:
    if "://" not in url:
        return LocalBackend(url)
    fs, root = open_filesystem(url)
    return ObjectBackend(fs, root, _MEMORY_LOCK if url.startswith("memory:") else nullcontext())


def foreign_errors() -> tuple[type[Exception], ...]:
    """Return the errors that a backend may raise, those of loaded client libraries included."""
    return (OSError, *loaded_errors(FOREIGN_ERRORS))


def _check_size(actual: int, expected: int) -> None:
    """Refuse a file that is shorter than what was written to it, whatever the system reported."""
    if actual != expected:
        raise OSError(errno.EIO, f"the disk holds {actual} of {expected} bytes")
