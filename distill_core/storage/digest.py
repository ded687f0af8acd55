"""sha256 of bytes and of files that may be remote."""

from __future__ import annotations

import hashlib

import fsspec

from distill_core.errors import ConfigError


def sha256(data: bytes) -> str:
    """Return the sha256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def read_file(url: str) -> bytes:
    """Return a whole file named by a path or an fsspec URL.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with fsspec.open(url, "rb") as stream:
            return bytes(stream.read())
    except OSError as error:
        raise ConfigError(f"{url}: cannot be read ({error}). Check the path.") from None


def file_sha256(url: str) -> str:
    """Return the sha256 of a file named by a path or an fsspec URL."""
    return sha256(read_file(url))
