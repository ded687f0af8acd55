"""The folder of a dataset in any file system that fsspec supports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from distill_core.data.files.errors import complete, reading
from distill_core.data.files.local import ListedFile, Listing
from distill_core.data.files.ranges import divided, merged
from distill_core.data.files.read_ahead import read_ahead
from distill_core.errors import DataError, MissingDataError
from distill_core.storage.filesystems import Steady
from distill_core.storage.signed_gets import StoredObject

# Keys of fsspec's listings, the most reliable first; each file system has some of them.
VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
LISTINGS = 8  # prefixes that are listed at the same time
FOLDER_OBJECT = "_$folder$"  # ends the names of empty objects that Hadoop writes for folders


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

        A few prefixes are listed at the same time; the objects of no more are in memory.
        """
        names = self.folders(path)
        # Others may have one connection, which threads cannot share: FTP, e.g.
        count = LISTINGS if getattr(self.fs, "async_impl", False) else 1
        below = partial(self.below, path)
        with closing(read_ahead(below, names, ahead=count, readers=count)) as listings:
            yield from zip(names, listings, strict=True)
        yield "", self.files_in(path)

    def files_in(self, path: str) -> Listing:
        """Return the objects directly below a prefix."""
        with reading(f"{self.url}/{path}"):
            entries = self.fs.ls(self._full(path), detail=True)
        return self._listing({entry["name"]: entry for entry in entries})

    def below(self, path: str, name: str) -> Listing:
        """Return all objects below a prefix that lies directly below another."""
        return self.files(f"{path}/{name}".lstrip("/"))

    def listed(self, path: str) -> ListedFile:
        """Return one object as its file system describes it now."""
        with reading(f"{self.url}/{path}"):
            entry = self.fs.info(self._full(path))
        return ListedFile(path, int(entry.get("size") or 0), _version(entry))

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
        contents = []
        for path, data in zip(paths, self._whole(paths), strict=True):
            with reading(self._full(path)):
                contents.append(_content(data))
        return contents

    def read_listed(self, files: Sequence[ListedFile]) -> tuple[list[bytes | None], bool]:
        """Return whole objects, None for each that there is not, and whether all are as listed.

        Only a bucket states the version of what it sends.
        """
        sent: list[StoredObject | None] = [None] * len(files)
        if isinstance(self.fs, Steady):
            sent = self.fs.get_objects([self._full(file.path) for file in files])
        pairs = [*zip(files, sent, strict=True)]
        others = iter(self._whole([file.path for file, found in pairs if found is None]))
        contents = [
            self._existing(file.path, next(others)) if found is None else found.data
            for file, found in pairs
        ]
        current = all(found and found.etag == file.version != "" for file, found in pairs)
        return contents, current

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return parts of objects, many at a time where the file system can.

        Neighbouring parts are one request.
        """
        spans = merged(ranges)
        paths = [self._full(span.path) for span in spans]
        starts = [span.first for span in spans]
        ends = [span.first + span.size for span in spans]
        contents = self.fs.cat_ranges(paths, starts, ends) if paths else []
        whole = []
        for span, data in zip(spans, contents, strict=True):
            where = f"{self.url}/{span.path}"
            with reading(where):
                content = _content(data)
            whole.append(complete(content, span.size, where))
        return divided(ranges, spans, whole)

    def open(self, path: str, *, sparse: bool = False) -> AbstractContextManager[Any]:
        """Open an object for range requests, of many megabytes unless `sparse` is set."""
        options = {"cache_type": "none"} if sparse else {}
        with reading(f"{self.url}/{path}"):
            opened: AbstractContextManager[Any] = self.fs.open(self._full(path), "rb", **options)
            return opened

    def _whole(self, paths: Sequence[str]) -> list[Any]:
        """Return whole objects, or what was raised instead of each."""
        # Not fs.cat, which would treat brackets in a file name as a pattern.
        full = [self._full(path) for path in paths]
        found: list[Any] = self.fs.cat_ranges(full, None, None) if full else []
        return found

    def _existing(self, path: str, data: Any) -> bytes | None:
        """Return the content of an object, None if there is none."""
        try:
            with reading(self._full(path)):
                return _content(data)
        except MissingDataError:
            return None

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}".rstrip("/")


def _content(data: Any) -> bytes:
    """Return the bytes of an object, or raise what was raised instead."""
    if isinstance(data, Exception):
        raise data
    return bytes(data)


def _is_folder(entry: dict[str, Any]) -> bool:
    return bool(entry["type"] == "directory")


def _is_marker(name: str, entry: dict[str, Any]) -> bool:
    """Return whether an object stands for a folder: consoles and Hadoop write such."""
    return _is_folder(entry) or name.endswith(("/", FOLDER_OBJECT))


def _version(entry: dict[str, Any]) -> str:
    """Return what a file system lists to tell one content of an object from the next."""
    return next((str(entry[key]) for key in VERSIONS if entry.get(key)), "")
