"""sha256 of bytes and of local or remote files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from distill_core.errors import ConfigError
from distill_core.storage.backends import foreign_errors
from distill_core.storage.filesystems import open_filesystem


def sha256(data: bytes) -> str:
    """Return the sha256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def read_file(url: str) -> bytes:
    """Return a whole file named by a path or an fsspec URL.

    Raises:
        ConfigError: it cannot be read.
    """
    with _reading(url):
        fs, path = open_filesystem(url)
        return bytes(fs.cat_file(path))


def check_file(url: str) -> None:
    """Check that a file named by a path or an fsspec URL exists; it is not read.

    Raises:
        ConfigError: there is none, or it cannot be reached.
    """
    with _reading(url):
        fs, path = open_filesystem(url)
        if not fs.isfile(path):
            raise ConfigError(f"{url}: no such file. Check the path.")


def read_range(url: str, start: int, end: int) -> bytes:
    """Return the bytes from `start` to `end` of a file; fewer where it ends before.

    Raises:
        ConfigError: they cannot be read.
    """
    with _reading(url):
        fs, path = open_filesystem(url)
        data = bytes(fs.cat_file(path, start=start, end=end))
    # A server that knows no ranges answers with the whole file.
    return data if len(data) <= end - start else data[start:end]


def file_size(url: str) -> int | None:
    """Return the length of a file in bytes; None if its server does not report it.

    Raises:
        ConfigError: there is no such file, or it cannot be reached.
    """
    check_file(url)
    with _reading(url):
        fs, path = open_filesystem(url)
        size = fs.size(path)
        return None if size is None else int(size)


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Translate the errors of file systems."""
    try:
        yield
    except foreign_errors() as error:
        raise ConfigError(f"{url}: cannot be read ({error}). Check the path.") from None
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{url}: cannot be opened ({error}). Use a path or s3://bucket/key; s3 needs "
            "`pip install 'distill[s3]'`."
        ) from None


def file_sha256(url: str) -> str:
    """Return the sha256 of a file named by a path or an fsspec URL."""
    return sha256(read_file(url))
