"""The files below a local folder, with links followed and every cycle of links passed over."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import NamedTuple

BLOCK = 2**20  # bytes of a file that are read at once if it has another size than expected
FolderId = tuple[int, int]  # device and inode of a folder
Guard = Callable[[str], AbstractContextManager[None]]  # translates the errors of one address


class ListedFile(NamedTuple):
    """One file of a listing."""

    path: str  # relative to the dataset's folder
    size: int  # bytes; -1: unknown, as that of a link that leads nowhere
    version: str  # etag, or times of the last change; another one after every change


@dataclass(frozen=True)
class Listing:
    """The files below a folder."""

    files: list[ListedFile] = field(default_factory=list)  # sorted by path
    not_followed: list[str] = field(default_factory=list)  # links, sorted

    @property
    def paths(self) -> list[str]:
        """Return the paths of the files, sorted."""
        return [file.path for file in self.files]


class LocalFiles:
    """Lists one folder on a disk.

    Below each folder that lies directly in it, every real folder is listed once: a link to a folder
    that contains it, or to one that is listed already, is not followed. Two classes may be links to
    the same folder.

    Args:
        top: absolute path of the folder.
        guard: translates the errors of a path; a folder that cannot be read is never left out.
    """

    def __init__(self, top: str, guard: Guard) -> None:
        self._top, self._guard = top, guard
        self._above = cache(self._find_above)

    def folders(self) -> list[str]:
        """Return the sorted names of the folders directly in it, hidden ones excluded."""
        above = self._above(self._top)
        return sorted(
            entry.name
            for entry in self._entries(self._top)[0]
            if not (entry.is_symlink() and self._identity(entry.path) in above)
        )

    def listing(self, root: str) -> Listing:
        """Return every file below it.

        Args:
            root: folder that the paths of the result are relative to.
        """
        return joined(listing for _, listing in self.by_folder(root))

    def by_folder(self, root: str) -> Iterator[tuple[str, Listing]]:
        """Yield the name and the files of each folder directly in it, then ``""`` and its own.

        Args:
            root: folder that the paths of the result are relative to.
        """
        for name in sorted(entry.name for entry in self._entries(self._top)[0]):
            yield name, self.below(name, root)
        yield "", self.own(root)

    def own(self, root: str) -> Listing:
        """Return the files directly in it.

        Args:
            root: folder that the paths of the result are relative to.
        """
        return Listing(_sorted(_listed(self._entries(self._top)[1], self._top, root)))

    def below(self, name: str, root: str) -> Listing:
        """Return the files of a folder directly in it; real folders come before links.

        Args:
            name: of the folder.
            root: folder that the paths of the result are relative to.
        """
        files: list[ListedFile] = []
        not_followed: list[str] = []
        first = os.path.join(self._top, name)
        seen = set(self._above(self._top))
        folders, links = deque[str](), deque[str]()
        if os.path.islink(first):
            links.append(first)
            seen |= self._above(os.path.dirname(os.path.realpath(first)))
        else:
            folders.append(first)
        while folders or links:
            is_link = not folders
            folder = links.popleft() if is_link else folders.popleft()
            identity = self._identity(folder)
            if identity in seen:
                not_followed.append(_below(folder, root))
                continue
            seen.add(identity)
            inner, own = self._entries(folder)
            files += _listed(own, folder, root)
            for entry in inner:
                (links if entry.is_symlink() else folders).append(entry.path)
        return Listing(_sorted(files), sorted(not_followed))

    def _entries(self, folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """Return the folders and the files in a folder; not pipes, sockets, or hidden names."""
        folders, files = list[os.DirEntry[str]](), list[os.DirEntry[str]]()
        with self._guard(folder), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # Ordinary files first: the other checks take longer than everything else.
                if entry.is_file(follow_symlinks=False):
                    files.append(entry)
                elif self._is_folder(entry):
                    folders.append(entry)
                elif _is_file(entry):
                    files.append(entry)
        return folders, files

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        if entry.is_symlink() and not os.path.exists(entry.path):
            return False  # a link to nothing, or to itself
        with self._guard(entry.path):
            return entry.is_dir()

    def _identity(self, folder: str) -> FolderId:
        with self._guard(folder):
            status = os.stat(folder)
        return status.st_dev, status.st_ino

    def _find_above(self, folder: str) -> frozenset[FolderId]:
        """Return a folder and all that contain it, by its own path and by the real one."""
        found = set()
        for path in (os.path.abspath(folder), os.path.realpath(folder)):
            while True:
                found.add(self._identity(path))
                if path == os.path.dirname(path):
                    break
                path = os.path.dirname(path)
        return frozenset(found)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a regular file, or a link that leads nowhere."""
    return entry.is_file() if not entry.is_symlink() else not _is_special(entry.path)


def _is_special(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


def joined(listings: Iterable[Listing]) -> Listing:
    """Return several listings as one."""
    parts = list(listings)
    return Listing(
        sorted(file for part in parts for file in part.files),
        sorted(path for part in parts for path in part.not_followed),
    )


def _below(folder: str, root: str) -> str:
    """Return the path of a folder below another, with slashes; empty: they are the same."""
    below = os.path.relpath(folder, root).replace(os.sep, "/")
    return "" if below == "." else below


def _sorted(files: list[ListedFile]) -> list[ListedFile]:
    return sorted(files, key=itemgetter(0))  # no path is there twice


def _listed(entries: list[os.DirEntry[str]], folder: str, root: str) -> list[ListedFile]:
    """Return the files in a folder as they are listed, by their paths relative to another."""
    prefix, found = _below(folder, root), []
    prefix = f"{prefix}/" if prefix else ""
    for entry in entries:
        path = prefix + entry.name
        try:
            found.append(listed_file(path, entry.stat()))
        except OSError:  # a link that leads nowhere, or a file that was deleted meanwhile
            found.append(ListedFile(path, -1, ""))
    return found


def listed_file(path: str, status: os.stat_result) -> ListedFile:
    """Return a file as it is listed."""
    # The time of the last write can be set, by tar or cp, to one that it had with other contents.
    version = f"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
    return ListedFile(path, status.st_size, version)


def read_file(path: str, size: int) -> tuple[bytes, os.stat_result]:
    """Return a file, and its status after it was read.

    Args:
        path: of the file.
        size: bytes that it should have, so that one call reads all of them.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        data = os.read(file, max(0, size) + 1)
        if len(data) != size:
            while more := os.read(file, BLOCK):
                data += more
        return data, os.fstat(file)
    finally:
        os.close(file)
