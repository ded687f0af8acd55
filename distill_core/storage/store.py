"""One door to object storage: whole objects in, whole objects out, over any fsspec URL.

Nothing is streamed into a final name: an exception inside ``fs.open(..., "wb")`` would publish a
truncated object. Every exception of fsspec, of its drivers and of the operating system ends here.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from distill_core.errors import DataError, StorageError

# Checksums that only AWS understands break other S3 servers; listings must never be stale.
S3_OPTIONS: Mapping[str, Any] = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 60,
        "retries": {"mode": "adaptive", "max_attempts": 5},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    },
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {"s3": S3_OPTIONS, "s3a": S3_OPTIONS}


@dataclass(frozen=True)
class Store:
    """A root below which artifacts live. Pickles as its URL; opened lazily in each process."""

    url: str  # a folder, file://, s3://bucket/prefix, memory://

    def uri(self, path: str) -> str:
        """Return the full address of an object, for people."""
        return f"{self.url.rstrip('/')}/{path}"

    def read(self, path: str) -> bytes:
        """Return a whole object.

        Raises:
            DataError: there is no such object.
            StorageError: the store refused.
        """
        fs, full = self._locate(path)
        with self._translated(path):
            try:
                return bytes(fs.cat_file(full))
            except FileNotFoundError:
                raise DataError(
                    f"{self.uri(path)}: no such object, though something refers to it. "
                    "`distill verify` lists what is missing."
                ) from None

    def exists(self, path: str) -> bool:
        """Return whether an object is there, now and not in a cached listing."""
        fs, full = self._locate(path)
        with self._translated(path):
            return bool(fs.isfile(full))

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the sorted names of the objects directly in a folder; one listing."""
        return self._children(folder, "file")

    def folders(self, folder: str) -> tuple[str, ...]:
        """Return the sorted names of the folders directly in a folder."""
        return self._children(folder, "directory")

    def _children(self, folder: str, kind: str) -> tuple[str, ...]:
        fs, full = self._locate(folder)
        with self._translated(folder):
            try:
                found = fs.ls(full, detail=True)
            except FileNotFoundError:
                return ()
        names = (entry["name"].rstrip("/") for entry in found if entry["type"] == kind)
        return tuple(sorted(n.rsplit("/", 1)[-1] for n in names if n != full and "/." not in n))

    def put(self, path: str, data: bytes) -> None:
        """Make `data` appear at `path` in one move, replacing what was there."""
        fs, full = self._locate(path)
        with self._translated(path):
            if isinstance(fs, LocalFileSystem):
                with _partial(full, data) as partial:
                    os.replace(partial, full)
            else:
                fs.pipe_file(full, data)

    def create(self, path: str, data: bytes) -> bool:
        """Make `data` appear at `path` unless something is there; True for exactly one caller.

        Small objects only: one PUT with If-None-Match, never a multipart upload.
        """
        fs, full = self._locate(path)
        with self._translated(path):
            try:
                if isinstance(fs, LocalFileSystem):
                    with _partial(full, data) as partial:
                        os.link(partial, full)
                else:
                    fs.pipe_file(full, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # Some servers answer 412 without the text by which s3fs knows it.
                if error.errno == errno.EINVAL and fs.exists(full):
                    return False
                raise
        return True

    def delete(self, path: str) -> None:
        """Remove an object; one that is gone already is fine."""
        fs, full = self._locate(path)
        with self._translated(path), suppress(FileNotFoundError):
            fs.rm_file(full)

    def _locate(self, path: str) -> tuple[AbstractFileSystem, str]:
        with self._translated(path):
            fs, root = _open(self.url, os.getpid())
        return fs, f"{root.rstrip('/')}/{path}" if path else root

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ImportError, ValueError) as error:
            raise StorageError(
                f"{self.uri(path)}: the store refused ({type(error).__name__}: {error}). "
                "Check that it exists, can be written, and that its credentials are set."
            ) from error


def probe(store: Store) -> bool:
    """Return whether the store refuses a second conditional create of one key.

    Raises:
        StorageError: the store cannot be written at all.
    """
    path = f".probe/{secrets.token_hex(16)}"
    try:
        store.create(path, b"first")
    except StorageError as error:
        raise StorageError(f"{store.url}: cannot be written. {error}") from error
    try:
        return not store.create(path, b"second")
    finally:
        store.delete(path)


@lru_cache(maxsize=16)
def _open(url: str, _process: int) -> tuple[AbstractFileSystem, str]:
    """Open a filesystem once per process; s3fs instances do not survive a fork."""
    protocol = url.split("://", 1)[0] if "://" in url else "file"
    fs, root = fsspec.core.url_to_fs(url, **OPTIONS.get(protocol, {}))
    return fs, str(root)


@contextmanager
def _partial(full: str, data: bytes) -> Iterator[str]:
    """Write a sibling of `full` (same disk, so a move is a rename) and remove it afterwards."""
    os.makedirs(os.path.dirname(full), exist_ok=True)
    partial = f"{full}.{secrets.token_hex(8)}.partial"
    try:
        with open(partial, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield partial
    finally:
        with suppress(FileNotFoundError):
            os.remove(partial)
