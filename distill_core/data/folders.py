"""The folder of a dataset, on a local disk or in any file system that fsspec supports.

Paths are relative to the folder, with slashes, so an index does not change when the folder moves.
Hidden files and folders (.DS_Store, .ipynb_checkpoints) are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.errors import ConfigError, DataError, StorageError
from distill_core.naming.addresses import data_address
from distill_core.storage.backends import foreign_errors
from distill_core.storage.filesystems import open_filesystem


class DatasetFolder(Protocol):
    """A folder of files, read only."""

    @property
    def url(self) -> str:
        """Return the address, for people."""

    def is_folder(self, path: str) -> bool:
        """Return whether a folder exists; the empty path is the dataset's folder itself."""

    def folders(self, path: str) -> list[str]:
        """Return the sorted names of the folders directly in a folder."""

    def files(self, path: str) -> list[str]:
        """Return the sorted paths of all files below a folder."""

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole files."""

    def open(self, path: str) -> AbstractContextManager[Any]:
        """Open a file for random access."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk; links are followed, because subsets are often built from links."""

    url: str

    def is_folder(self, path: str) -> bool:
        """Return whether a folder exists."""
        return Path(self.url, path).is_dir()

    def folders(self, path: str) -> list[str]:
        """Return the sorted names of the folders directly in a folder."""
        with reading(f"{self.url}/{path}"), os.scandir(Path(self.url, path)) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def files(self, path: str) -> list[str]:
        """Return the sorted paths of all files below a folder."""
        paths: list[str] = []
        for folder, folders, names in os.walk(Path(self.url, path), followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = os.path.relpath(folder, self.url).replace(os.sep, "/")
            prefix = "" if below == "." else f"{below}/"
            paths += [f"{prefix}{name}" for name in names if not name.startswith(".")]
        return sorted(paths)

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole files."""
        contents = []
        for path in paths:
            with reading(f"{self.url}/{path}"):
                contents.append(Path(self.url, path).read_bytes())
        return contents

    def open(self, path: str) -> AbstractContextManager[Any]:
        """Map a file into memory."""
        with reading(f"{self.url}/{path}"):
            opened: AbstractContextManager[Any] = pa.memory_map(str(Path(self.url, path)))
            return opened


@dataclass(frozen=True)
class RemoteFolder:
    """A prefix in any file system of fsspec."""

    url: str
    fs: Any  # fsspec has no types
    root: str

    def is_folder(self, path: str) -> bool:
        """Return whether anything lies below that prefix."""
        with reading(f"{self.url}/{path}"):
            return bool(self.fs.isdir(self._full(path)))

    def folders(self, path: str) -> list[str]:
        """Return the sorted names of the prefixes directly below a prefix."""
        with reading(f"{self.url}/{path}"):
            entries = self.fs.ls(self._full(path), detail=True)
        names = (e["name"].rstrip("/").rpartition("/")[2] for e in entries if _is_folder(e))
        return sorted(name for name in names if not name.startswith("."))

    def files(self, path: str) -> list[str]:
        """Return the sorted paths of all objects below a prefix."""
        with reading(f"{self.url}/{path}"):
            names = self.fs.find(self._full(path))
        above = f"{self.root.strip('/')}/".lstrip("/")
        below = [name.strip("/").removeprefix(above) for name in names]
        if not all(name.strip("/").startswith(above) for name in names):
            raise DataError(
                f"{self.url}: the file system lists names that are not below the folder, such as "
                f"{names[0]!r}. Use another spelling of data.path."
            )
        return sorted(name for name in below if not name.startswith(".") and "/." not in name)

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole objects, many at a time where the file system can."""
        full = [self._full(path) for path in paths]
        # Not fs.cat, which would treat brackets in a file name as a pattern.
        contents = self.fs.cat_ranges(full, None, None) if full else []
        for path, data in zip(full, contents, strict=True):
            with reading(path):
                if isinstance(data, Exception):
                    raise data
        return [bytes(data) for data in contents]

    def open(self, path: str) -> AbstractContextManager[Any]:
        """Open an object for range requests."""
        with reading(f"{self.url}/{path}"):
            opened: AbstractContextManager[Any] = self.fs.open(self._full(path), "rb")
            return opened

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}".rstrip("/")


def locate(config: DataConfig) -> DatasetFolder:
    """Return the folder of a dataset.

    Raises:
        ConfigError: no path is given, or no installed file system can open it.
        DataError: there is no such folder.
    """
    if config.path is None:
        raise ConfigError(
            f"data.path: missing, but format {config.format} needs it. Set data.path=DIR."
        )
    place = _open(config.path)
    if not place.is_folder(""):
        raise DataError(f"data.path: {config.path}: no such folder. Check the path.")
    return place


def _open(url: str) -> DatasetFolder:
    url = data_address(url, key="data.path")
    if "://" not in url:
        return LocalFolder(url)
    try:
        fs, root = open_filesystem(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"data.path: {url}: cannot be opened ({error}). Use a folder or s3://bucket/prefix; "
            "s3 needs `pip install 'distill[s3]'`."
        ) from error
    return RemoteFolder(url, fs, root.rstrip("/"))


def _is_folder(entry: dict[str, Any]) -> bool:
    return bool(entry["type"] == "directory")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Translate the errors of a file system into our own."""
    try:
        yield
    except FileNotFoundError as error:
        missing = error.filename or where
        raise DataError(
            f"{missing}: no such file or folder. If the dataset was moved, update data.path."
        ) from error
    except foreign_errors() as error:
        raise StorageError(
            f"{where}: cannot be read ({error}). Check the address and the permissions, then "
            "run again."
        ) from error
