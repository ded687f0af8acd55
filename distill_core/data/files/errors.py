"""Errors of the file systems that hold datasets, as our own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from distill_core.errors import DataError, MissingDataError, StorageError
from distill_core.storage.backends import foreign_errors


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Translate the errors of a file system into our own."""
    try:
        yield
    except foreign_errors() as error:
        if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ELOOP:
            missing = getattr(error, "filename", None) or where
            raise MissingDataError(
                f"{missing}: no such file or folder. If the dataset was moved, update data.path."
            ) from error
        raise StorageError(
            f"{where}: cannot be read ({error}). Check the address and the permissions, then "
            "run again."
        ) from error


def complete(data: bytes, size: int, where: str) -> bytes:
    """Return a part of a file.

    Raises:
        DataError: the file ends before it.
    """
    if len(data) < size:
        raise DataError(f"{where}: is shorter than when it was ingested. Restore the file.")
    return data
