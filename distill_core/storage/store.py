"""A store: a folder or bucket of objects by path, with a conditional create.

Errors of file systems and cloud clients are translated here; callers see only our own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from distill_core.errors import ConfigError, DataError, StorageError, StorageRefused, one_line
from distill_core.naming.addresses import store_address
from distill_core.storage.backends import Backend, foreign_errors, open_backend
from distill_core.storage.error_hints import hint
from distill_core.storage.listing import StoredFile, Upload

PROBES = ".probe"  # folder of the objects by which a store is tried out
ANOTHER_STORE = "Use another store, or --single-writer with a single driver."


@dataclass(frozen=True)
class Store:
    """Objects below one URL; a value, which is pickled without its connection.

    Paths are relative, with slashes. `put` is for names that nobody else writes and for advisory
    files; records that decide something are made by `create`.
    """

    url: str  # folder, file://, s3://bucket/prefix, memory://name; a folder is made absolute
    # `create` continues if the store has no conditional create.
    single_writer: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse an address that cannot be a store, and give the others their one spelling."""
        object.__setattr__(self, "url", store_address(self.url))

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
            raise ValueError(
                f"{path}: {length} bytes from {start}, expected a start >= 0 and a length >= 1"
            )
        with self._translated(path, "cannot be read"), self._expected(path):
            return self._backend.read_range(path, start, length)

    def exists(self, path: str) -> bool:
        """Return whether an object exists at a path; a folder is not an object."""
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

        Symbolic links below the root are not followed; they are listed as `regular=False`.

        Args:
            folder: relative, or empty for the whole store.
            partial: include the hidden files of unfinished writes on a local disk.
        """
        with self._translated(folder, "cannot be listed"):
            files = self._backend.files(folder, partial=partial)
            return tuple(sorted(files, key=lambda file: file.path))

    def uploads(self) -> tuple[Upload, ...]:
        """Return the unfinished multipart uploads; only buckets have any."""
        with self._translated("", "its uploads cannot be listed"):
            return tuple(self._backend.uploads())

    def abort(self, upload: Upload) -> None:
        """Delete the parts of an unfinished upload; a missing one is not an error."""
        with self._translated(upload.path, "its upload cannot be aborted"):
            self._backend.abort(upload)

    def put(self, path: str, data: bytes) -> None:
        """Write a whole object atomically, replacing an existing one."""
        with self._translated(path, "cannot be written"):
            self._backend.put(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object if there is none; return True to exactly one of all callers.

        With `single_writer` and a store without a conditional create, several concurrent callers
        may get True; the last write is the one that remains.

        Raises:
            StorageError: the store refused, or its answer was lost and the object may exist.
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
        """Delete an object; a missing one is not an error."""
        with self._translated(path, "cannot be deleted"):
            self._backend.delete(path)

    def delete_unlinked(self, path: str) -> bool:
        """Delete an object, unless it or a folder above it is a symbolic link.

        For objects of other processes: what lies behind a link is not part of the store.

        Returns:
            False: nothing was deleted.
        """
        with self._translated(path, "cannot be deleted"):
            return self._backend.delete_unlinked(path)

    def uri(self, path: str) -> str:
        """Return the full address of an object, for people."""
        return f"{self.url.rstrip('/') if self.url.strip('/') else ''}/{path}"

    def _entries(self, folder: str, *, folders: bool) -> tuple[str, ...]:
        with self._translated(folder, "cannot be listed"):
            entries = self._backend.entries(folder)
            return tuple(sorted(name for name, is_folder in entries if is_folder == folders))

    @property
    def _backend(self) -> Backend:
        """Return the backend, opened on first use and not part of this value."""
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
                f"{self.uri(path)}: no such object, but one was expected. "
                f"Check the store's address, or run the stage that writes it."
            ) from None

    @contextmanager
    def _translated(self, path: str, what: str) -> Iterator[None]:
        if path.startswith("/") or ".." in path.split("/"):
            raise DataError(
                f"{self.url}: {path!r} leads out of the store. Repair the record that names it."
            )
        try:
            yield
        except foreign_errors() as error:
            where = f"{self.uri(path)}: {what} ({_reason(error)})"
            if (remedy := hint(error)) is not None:
                raise StorageRefused(f"{where}. {remedy}.") from error
            raise StorageError(
                f"{where}. Check the address, the permissions and the free space, then run again."
            ) from error


def probe(store: Store) -> bool:
    """Create one random object twice and delete it; return whether the second create was refused.

    A store that accepts the second create cannot arbitrate between drivers.

    Raises:
        StorageError: the store cannot be written at all.
        StorageRefused: it does not list the object that it created, so that every finished shard
            would be made again.
    """
    name, strict = secrets.token_hex(16), replace(store, single_writer=False)
    path = f"{PROBES}/{name}"
    try:
        first = strict.create(path, b"probe")
    except StorageRefused:
        store.put(path, b"probe")  # raises if plain writes are refused, too
        first = False
    try:
        _check_listed(store, name)
        return first and not strict.create(path, b"probe")
    finally:
        store.delete(path)


def _check_listed(store: Store, name: str) -> None:
    if name not in store.names(PROBES):
        raise StorageRefused(
            f"{store.uri(PROBES)}: {name} was created there, but a listing does not show it, so "
            "finished shards would not be found. Correct the address (s3://bucket/prefix, without "
            "doubled or trailing slashes), or use another store."
        )


def _reason(error: Exception) -> str:
    """Return an error in one line: its text, or its type if it has none."""
    return one_line(getattr(error, "strerror", None) or error) or type(error).__name__
