"""A store: any folder or bucket that holds objects by path, and creates one of them only once.

Errors of file systems and cloud clients end here; above, there are only ours.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from distill_core.errors import ConfigError, DataError, StorageError, StorageRefused
from distill_core.storage.backends import Backend, foreign_errors, open_backend
from distill_core.storage.error_hints import hint
from distill_core.storage.listing import StoredFile, Upload

ANOTHER_STORE = "Use another store, or --single-writer with one driver only."


@dataclass(frozen=True)
class Store:
    """Objects below one URL; a value, which travels to other processes without its connection.

    Paths are relative, with slashes. `put` is for names nobody else writes and for advisory files;
    whatever decides something is made by `create`.
    """

    url: str  # folder, file://, s3://bucket/prefix, memory://name; a folder is made absolute
    # `create` goes on where the store cannot arbitrate.
    single_writer: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Keep one spelling of the address."""
        object.__setattr__(self, "url", _normalised(self.url))

    def read(self, path: str) -> bytes:
        """Return a whole object.

        Raises:
            DataError: there is no such object.
            StorageError: the store refused.
        """
        with self._translated(path, "cannot be read"), self._expected(path):
            return self._backend.read(path)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes of an object from byte `start`, fewer where it ends before.

        Args:
            path: of the object.
            start: 0 up to the size of the object, not including it.
            length: 1 or more.

        Raises:
            DataError: there is no such object.
            StorageError: the store refused.
        """
        if start < 0 or length < 1:
            raise ValueError(f"{path}: {length} bytes from {start} are no range")
        with self._translated(path, "cannot be read"), self._expected(path):
            return self._backend.read_range(path, start, length)

    def exists(self, path: str) -> bool:
        """Return whether an object stands at a path; a folder is none."""
        with self._translated(path, "cannot be read"):
            return self._backend.is_file(path)

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the sorted names of the objects directly in a folder; none if it is missing."""
        return self._entries(folder, folders=False)

    def folders(self, folder: str) -> tuple[str, ...]:
        """Return the sorted names of the folders directly in a folder; none if it is missing."""
        return self._entries(folder, folders=True)

    def files(self, folder: str, *, partial: bool = False) -> tuple[StoredFile, ...]:
        """Return every object below a folder at any depth, sorted by path; none if it is missing.

        Args:
            folder: relative, or empty for the whole store.
            partial: also the hidden files that writers on a local disk have not finished.
        """
        with self._translated(folder, "cannot be listed"):
            found = self._backend.files(folder, partial=partial)
            return tuple(sorted(found, key=lambda file: file.path))

    def uploads(self) -> tuple[Upload, ...]:
        """Return the multipart uploads that were begun and never ended; none but in a bucket."""
        with self._translated("", "its uploads cannot be listed"):
            return tuple(self._backend.uploads())

    def abort(self, upload: Upload) -> None:
        """Drop the parts of an unfinished upload; one that is gone is fine."""
        with self._translated(upload.path, "its upload cannot be aborted"):
            self._backend.abort(upload)

    def put(self, path: str, data: bytes) -> None:
        """Make a whole object appear in one move, replacing what was there."""
        with self._translated(path, "cannot be written"):
            self._backend.put(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Make an object if there is none; return True to exactly one of all who try.

        With `single_writer`, of those who try at the same moment more than one may be told True,
        if the store cannot tell them apart; the last of them stands.

        Raises:
            StorageError: the store refused, or the answer was lost: the object may then be there.
        """
        if self.single_writer and self.exists(path):
            return False
        with self._translated(path, "cannot be written"):
            try:
                return self._backend.create(path, data)
            except NotImplementedError:
                pass
        if not self.single_writer:
            raise StorageRefused(
                f"{self.uri(path)}: cannot be created, since the store has no conditional create. "
                f"{ANOTHER_STORE}"
            )
        self.put(path, data)
        return True

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is fine."""
        with self._translated(path, "cannot be deleted"):
            self._backend.delete(path)

    def uri(self, path: str) -> str:
        """Return the full address of an object, for people."""
        return f"{self.url.rstrip('/') if self.url.strip('/') else ''}/{path}"

    def _entries(self, folder: str, *, folders: bool) -> tuple[str, ...]:
        with self._translated(folder, "cannot be listed"):
            found = self._backend.entries(folder)
            return tuple(sorted(name for name, is_folder in found if is_folder == folders))

    @property
    def _backend(self) -> Backend:
        """Open the file system on first use; this value stays a URL."""
        try:
            return open_backend(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{self.url}: cannot be opened ({error}). Use a folder or s3://bucket/prefix; "
                f"s3 needs `pip install 'distill[s3]'`."
            ) from error

    @contextmanager
    def _expected(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise DataError(
                f"{self.uri(path)}: no such object, though one was expected. "
                f"Check the store's address, or run the stage that writes it."
            ) from None

    @contextmanager
    def _translated(self, path: str, what: str) -> Iterator[None]:
        try:
            yield
        except foreign_errors() as error:
            where = f"{self.uri(path)}: {what} ({_said(error)})"
            if (remedy := hint(error)) is not None:
                raise StorageRefused(f"{where}. {remedy}.") from error
            raise StorageError(
                f"{where}. Check the address, the permissions and the free space, then run again."
            ) from error


def probe(store: Store) -> bool:
    """Create one random object twice and delete it; return whether the second was refused.

    A store that lets the second through cannot arbitrate between drivers.

    Raises:
        StorageError: the store cannot be written at all.
    """
    path, strict = f".probe/{secrets.token_hex(16)}", replace(store, single_writer=False)
    try:
        first = strict.create(path, b"probe")
    except StorageRefused:
        store.put(path, b"probe")  # raises, unless it was only the condition that was refused
        first = False
    try:
        return first and not strict.create(path, b"probe")
    finally:
        store.delete(path)


def _normalised(url: str) -> str:
    """Return one spelling per place; a relative folder would mean another one elsewhere."""
    for prefix in ("file://", "local://"):
        url = url.removeprefix(prefix)
    if "://" not in url:
        return os.path.abspath(os.path.expanduser(url))
    if urlsplit(url).password is not None:
        raise ConfigError(
            "store: the address contains credentials, which would be stored with every run. "
            "Leave them to the environment (AWS_ACCESS_KEY_ID, ...) or to your cloud's roles."
        )
    protocol, _, rest = url.partition("://")
    return f"{protocol}://{rest.rstrip('/')}"


def _said(error: Exception) -> str:
    """Return an error in one line, its kind included where its text says nothing."""
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return text or type(error).__name__
