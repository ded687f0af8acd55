"""The folder of a dataset, on a local disk or in any file system that fsspec supports.

Paths are relative to the folder, with slashes, so an index does not change when the folder moves.
Hidden files and folders (.DS_Store, .ipynb_checkpoints) are ignored, and so are the objects that
stand for folders in a bucket.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.data.files.errors import complete, reading
from distill_core.data.files.local import ListedFile, Listing, LocalFiles, listed_file, read_file
from distill_core.data.files.remote import RemoteFolder
from distill_core.errors import ConfigError, DataError, MissingDataError, shown
from distill_core.naming.addresses import data_address
from distill_core.storage.filesystems import open_filesystem


class DatasetFolder(Protocol):
    """A folder of files, read only."""

    @property
    def url(self) -> str:
        """Return the address, for people."""

    def __hash__(self) -> int:
        """Return a hash; equal folders are the same place."""

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

    def listed(self, path: str) -> ListedFile:
        """Return one file as a listing shows it now.

        Raises:
            MissingDataError: there is no such file.
        """

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole files."""

    def read_listed(self, files: Sequence[ListedFile]) -> tuple[list[bytes | None], bool]:
        """Return whole files, None for each that there is not, and whether all are as listed.

        It is False also where the folder cannot tell.
        """

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return parts of files, each given as path, first byte and number of bytes.

        Raises:
            DataError: a file is missing or shorter.
        """

    def open(self, path: str, *, sparse: bool = False) -> AbstractContextManager[Any]:
        """Open a file for random access; `sparse`: a few bytes here and there, nothing ahead."""


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

    def listed(self, path: str) -> ListedFile:
        """Return one file as a listing shows it now."""
        with reading(f"{self.url}/{path}"):
            return listed_file(path, os.stat(self._full(path)))

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """Return whole files."""
        contents = []
        for path in paths:
            full = self._full(path)
            with reading(full), open(full, "rb", buffering=0) as file:
                contents.append(file.read())
        return contents

    def read_listed(self, files: Sequence[ListedFile]) -> tuple[list[bytes | None], bool]:
        """Return whole files, None for each that there is not, and whether all are as listed."""
        contents, current = list[bytes | None](), True
        for file in files:
            full = self._full(file.path)
            try:
                data, status = read_file(full, file.size)
            except OSError as error:
                with suppress(MissingDataError), reading(full):
                    raise error
                contents.append(None)
                current = current and not file.version
            else:
                contents.append(data)
                current = current and file == listed_file(file.path, status)
        return contents, current

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return parts of files; those of one file that follow each other open it once."""
        contents: list[bytes] = []
        for path, group in groupby(ranges, key=itemgetter(0)):
            with reading(f"{self.url}/{path}"), Path(self.url, path).open("rb") as file:
                for _, first, size in group:
                    file.seek(first)
                    contents.append(complete(file.read(size), size, f"{self.url}/{path}"))
        return contents

    def open(self, path: str, *, sparse: bool = False) -> AbstractContextManager[Any]:
        """Map a file into memory.

        Raises:
            DataError: its name is not UTF-8, which Arrow cannot open and no address can state.
        """
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{shown(path)}: the name of the file is not UTF-8. Rename it."
            ) from None
        with reading(f"{self.url}/{path}"):
            opened: AbstractContextManager[Any] = pa.memory_map(self._full(path))
            return opened

    def _full(self, path: str) -> str:
        return os.path.join(self.url, path)


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
