"""The folder of a dataset, on a local disk or in any file system that fsspec supports.

Paths are relative to the folder, with slashes, so an index does not change when the folder moves.
Hidden files and folders (.DS_Store, .ipynb_checkpoints) are ignored, and so are the objects that
stand for folders in a bucket.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.data.local_files import ListedFile, Listing, LocalFiles
from distill_core.errors import ConfigError, DataError, MissingDataError, StorageError
from distill_core.naming.addresses import data_address
from distill_core.storage.backends import foreign_errors
from distill_core.storage.filesystems import open_filesystem

# Keys of fsspec's listings, the most reliable first; each file system has some of them.
VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
FOLDER_OBJECT = "_$folder$"  # ends the names of empty objects that Hadoop writes for folders


class DatasetFolder(Protocol):
    """A folder of files, read only."""

    @property
    def url(self) -> str:
        """Return the address, for people."""

    def is_folder(self, path: str) -> bool:
        """Return whether a folder exists; the empty path is the dataset's folder itself."""

    def folders(self, path: str) -> list[str]:
        """Return the sorted names of the folders directly in a folder."""

    def files(self, path: str) -> Listing:
        """Return all files below a folder."""

    def files_in(self, path: str) -> Listing:
        """Return the files directly in a folder."""

    def by_folder(self, path: str) -> Iterator[tuple[str, Listing]]:
        """Yield the name and the files of each folder directly in a folder, then `""` and its own.

        A folder that is a link is listed as if it were one of its parent.
        """

    def below(self, path: str, name: str) -> Listing:
        """Return all files below a folder that lies directly in another, as `by_folder` does."""

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole files."""

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return parts of files, each given as path, first byte and number of bytes.

        Raises:
            DataError: a file is missing or shorter.
        """

    def open(self, path: str) -> AbstractContextManager[Any]:
        """Open a file for random access."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk; links are followed, because subsets are often built from links."""

    url: str

    def is_folder(self, path: str) -> bool:
        """Return whether a folder exists."""
        with reading(self._full(path)):
            return Path(self.url, path).is_dir()

    def folders(self, path: str) -> list[str]:
        """Return the sorted names of the folders directly in a folder."""
        return LocalFiles(self._full(path), reading).folders()

    def files(self, path: str) -> Listing:
        """Return all files below a folder."""
        return LocalFiles(self._full(path), reading).listing(self.url)

    def files_in(self, path: str) -> Listing:
        """Return the files directly in a folder."""
        return LocalFiles(self._full(path), reading).own(self.url)

    def by_folder(self, path: str) -> Iterator[tuple[str, Listing]]:
        """Yield the name and the files of each folder directly in a folder, then `""` and its own.

        Links are followed within each of these folders; see `LocalFiles`.
        """
        return LocalFiles(self._full(path), reading).by_folder(self.url)

    def below(self, path: str, name: str) -> Listing:
        """Return all files below a folder that lies directly in another, as `by_folder` does."""
        return LocalFiles(self._full(path), reading).below(name, self.url)

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole files."""
        contents = []
        for path in paths:
            with reading(f"{self.url}/{path}"):
                contents.append(Path(self.url, path).read_bytes())
        return contents

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return parts of files; those of one file that follow each other open it once."""
        contents: list[bytes] = []
        for path, group in groupby(ranges, key=itemgetter(0)):
            with reading(f"{self.url}/{path}"), Path(self.url, path).open("rb") as file:
                for _, first, size in group:
                    file.seek(first)
                    contents.append(_complete(file.read(size), size, f"{self.url}/{path}"))
        return contents

    def open(self, path: str) -> AbstractContextManager[Any]:
        """Map a file into memory."""
        with reading(f"{self.url}/{path}"):
            opened: AbstractContextManager[Any] = pa.memory_map(self._full(path))
            return opened

    def _full(self, path: str) -> str:
        return os.path.join(self.url, path)


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
        full = self._full(path)
        with reading(f"{self.url}/{path}"):
            entries = self.fs.ls(full, detail=True)
        names = set()
        for entry in entries:
            parent, _, name = entry["name"].rstrip("/").rpartition("/")
            # A marker of the folder itself is listed beside what it holds.
            if _is_folder(entry) and parent.lstrip("/") == full.lstrip("/"):
                names.add(name)
        return sorted(name for name in names if not name.startswith("."))

    def files(self, path: str) -> Listing:
        """Return all objects below a prefix."""
        with reading(f"{self.url}/{path}"):
            entries = self.fs.find(self._full(path), detail=True)
        return self._listing(entries)

    def by_folder(self, path: str) -> Iterator[tuple[str, Listing]]:
        """Yield the name and the objects of each prefix directly below one, then `""` and its own.

        Only the objects of one prefix are in memory at a time.
        """
        for name in self.folders(path):
            yield name, self.below(path, name)
        yield "", self.files_in(path)

    def files_in(self, path: str) -> Listing:
        """Return the objects directly below a prefix."""
        with reading(f"{self.url}/{path}"):
            entries = self.fs.ls(self._full(path), detail=True)
        return self._listing({entry["name"]: entry for entry in entries})

    def below(self, path: str, name: str) -> Listing:
        """Return all objects below a prefix that lies directly below another."""
        return self.files(f"{path}/{name}".lstrip("/"))

    def _listing(self, entries: Mapping[str, dict[str, Any]]) -> Listing:
        above = f"{self.root.strip('/')}/".lstrip("/")
        objects = {
            name.strip("/"): entry for name, entry in entries.items() if not _is_marker(name, entry)
        }
        if stray := [name for name in objects if not name.startswith(above)]:
            raise DataError(
                f"{self.url}: the file system lists names that are not below the folder, such as "
                f"{stray[0]!r}. Use another spelling of data.path."
            )
        below = ((name.removeprefix(above), entry) for name, entry in objects.items())
        return Listing(
            sorted(
                ListedFile(name, int(entry.get("size") or 0), _version(entry))
                for name, entry in below
                if not name.startswith(".") and "/." not in name
            )
        )

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

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return parts of objects, many at a time where the file system can."""
        paths = [self._full(path) for path, _, _ in ranges]
        starts = [first for _, first, _ in ranges]
        ends = [first + size for _, first, size in ranges]
        contents = self.fs.cat_ranges(paths, starts, ends) if paths else []
        whole = []
        for (path, _, size), data in zip(ranges, contents, strict=True):
            with reading(f"{self.url}/{path}"):
                if isinstance(data, Exception):
                    raise data
            whole.append(_complete(bytes(data), size, f"{self.url}/{path}"))
        return whole

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
        MissingDataError: there is no such folder.
    """
    if config.path is None:
        raise ConfigError(
            f"data.path: missing, but format {config.format} needs it. Set data.path=DIR."
        )
    place = open_place(config.path, "data.path")
    if not place.is_folder(""):
        raise MissingDataError(f"data.path: {config.path}: no such folder. Check the path.")
    return place


def open_place(url: str, key: str) -> DatasetFolder:
    """Return a folder that may not exist.

    Args:
        url: path or URL.
        key: of the config, for errors.

    Raises:
        ConfigError: no installed file system can open it.
    """
    url = data_address(url, key=key)
    if "://" not in url:
        return LocalFolder(url)
    try:
        fs, root = open_filesystem(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{key}: {url}: cannot be opened ({error}). Use a folder or s3://bucket/prefix; "
            "s3 needs `pip install 'distill[s3]'`."
        ) from error
    return RemoteFolder(url, fs, root.rstrip("/"))


def _complete(data: bytes, size: int, where: str) -> bytes:
    """Return a part of a file.

    Raises:
        DataError: the file ends before it.
    """
    if len(data) < size:
        raise DataError(f"{where}: is shorter than when it was ingested. Restore the file.")
    return data


def _is_folder(entry: dict[str, Any]) -> bool:
    return bool(entry["type"] == "directory")


def _is_marker(name: str, entry: dict[str, Any]) -> bool:
    """Return whether an object stands for a folder: consoles and Hadoop write such."""
    return _is_folder(entry) or name.endswith(("/", FOLDER_OBJECT))


def _version(entry: dict[str, Any]) -> str:
    """Return what a file system lists to tell one content of an object from the next."""
    return next((str(entry[key]) for key in VERSIONS if entry.get(key)), "")


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
