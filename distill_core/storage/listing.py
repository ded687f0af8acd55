"""Listing and range reads of a backend, for garbage collection and partial readers.

Listings can include the remains of killed writers, which readers never see: partial files on a
disk, and unfinished multipart uploads in a bucket.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

PARTIAL = ".partial"  # hidden siblings of local files being written
MODIFIED = (
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "created",
)  # names of the modification time in fsspec


@dataclass(frozen=True)
class StoredFile:
    """One object, as a listing describes it."""

    path: str  # relative to the store
    bytes: int
    modified: datetime  # UTC, by the clock of the store
    # False: a symbolic link, to a file or a folder, or a special file. Listings never follow links.
    regular: bool = True


@dataclass(frozen=True)
class Upload:
    """An unfinished multipart upload; its parts cost storage but appear in no listing."""

    path: str  # of the object it was meant for, relative to the store
    id: str
    begun: datetime  # UTC


class Lists(Protocol):
    """The listing operations of a backend; paths are relative to its root."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, fewer where the object ends."""

    def files(self, folder: str, *, partial: bool) -> Iterator[StoredFile]:
        """Yield everything below a folder; `partial` adds local files that are being written.

        Symbolic links are yielded as such and not followed; the root of the store may be one.
        """

    def delete_unlinked(self, path: str) -> bool:
        """Delete an object, unless it or a folder above it is a symbolic link.

        Returns:
            False: nothing was deleted, since that would be outside the store or no plain file.
        """

    def uploads(self) -> Iterator[Upload]:
        """Yield the unfinished multipart uploads."""

    def abort(self, upload: Upload) -> None:
        """Delete the parts of an upload; a missing upload is not an error."""


class ListsDisk:
    """Lists a folder on a disk."""

    root: str

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, fewer where the file ends."""
        try:
            with Path(self.root, path).open("rb") as stream:
                stream.seek(start)
                return stream.read(length)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(path) from error

    def files(self, folder: str, *, partial: bool) -> Iterator[StoredFile]:
        """Yield every file below a folder; an unreadable folder raises an error."""
        top = Path(self.root, folder)
        below = [top, *top.parents][: len(Path(folder).parts)]
        if link := next((part for part in reversed(below) if part.is_symlink()), None):
            yield from self._described(link)
            return
        for parent, folders, names in os.walk(top, onerror=_unless_missing):
            links = [name for name in folders if Path(parent, name).is_symlink()]
            for name in (*names, *links):
                if partial or not name.endswith(PARTIAL):
                    yield from self._described(Path(parent, name))

    def delete_unlinked(self, path: str) -> bool:
        """Delete a regular file; no part of the path below the root may be a symbolic link.

        Each folder is opened from the one above it, so that replacing one by a link at the same
        time has no effect.
        """
        *folders, name = Path(path).parts
        opened: list[int] = []
        try:
            opened.append(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY))
            for folder in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                opened.append(os.open(folder, flags, dir_fd=opened[-1]))
            status = os.stat(name, dir_fd=opened[-1], follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return False
            os.unlink(name, dir_fd=opened[-1])
        except FileNotFoundError:
            return True  # somebody else deleted it
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link, or a file in its place
                return False
            raise
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return True

    def uploads(self) -> Iterator[Upload]:
        """Yield nothing: on a disk, a killed writer leaves a partial file instead."""
        return iter(())

    def abort(self, upload: Upload) -> None:
        """Do nothing: there are no uploads."""

    def _described(self, full: Path) -> Iterator[StoredFile]:
        try:
            status = full.lstat()
        except FileNotFoundError:
            return  # deleted since it was listed
        path, regular = full.relative_to(self.root).as_posix(), stat.S_ISREG(status.st_mode)
        yield StoredFile(path, status.st_size, _utc(status.st_mtime), regular)


class ListsObjects:
    """Lists a prefix of any fsspec file system."""

    fs: Any
    root: str
    lock: AbstractContextManager[Any]

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, fewer where the object ends."""
        with self.lock:
            full = f"{self._base}{path}"
            return bytes(self._present(full, self.fs.cat_file, start=start, end=start + length))

    def files(self, folder: str, *, partial: bool) -> Iterator[StoredFile]:
        """Yield every object below a prefix; unfinished uploads have no name here."""
        within = f"{self._base}{folder}".rstrip("/") + "/"
        with self.lock:
            try:
                entries = self._present(within.rstrip("/"), self.fs.find, detail=True)
            except FileNotFoundError:
                return
        for name, entry in entries.items():
            full = name.lstrip("/")
            if entry["type"] == "file" and full.startswith(within):
                path = full.removeprefix(self._base)
                yield StoredFile(path, int(entry["size"]), self._modified(entry))

    def delete_unlinked(self, path: str) -> bool:
        """Delete an object; there are no links here."""
        with self.lock, suppress(FileNotFoundError):
            self.fs.rm_file(f"{self._base}{path}")
        return True

    def uploads(self) -> Iterator[Upload]:
        """Yield the multipart uploads below the prefix, if the file system has any."""
        if not hasattr(self.fs, "list_multipart_uploads"):
            return
        bucket, _, prefix = self._base.partition("/")
        page: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        while page:
            # s3fs's own method supports neither prefixes nor more than one page.
            answer = self.fs.call_s3("list_multipart_uploads", **page)
            for entry in answer.get("Uploads") or ():
                path = entry["Key"].removeprefix(prefix)
                yield Upload(path, entry["UploadId"], _utc(entry["Initiated"]))
            page = _next(page, answer)

    def abort(self, upload: Upload) -> None:
        """Delete the parts of an upload; a missing upload is not an error."""
        bucket, _, key = f"{self._base}{upload.path}".partition("/")
        try:
            self.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.id)
        except FileNotFoundError:
            return

    def _present(self, full: str, call: Callable[..., Any], **options: Any) -> Any:
        """Call a method of the file system for an object or a folder.

        A bucket refuses a GET or HEAD of a missing object, instead of reporting that it is missing,
        to a role that may list only the prefix of its store. A listing of the name tells.

        Raises:
            FileNotFoundError: there is nothing at this name or below it.
        """
        try:
            return call(full, **options)
        except PermissionError as error:
            if self._is_missing(full):
                raise FileNotFoundError(full) from error
            raise

    def _is_missing(self, full: str) -> bool:
        folder, _, name = full.rpartition("/")
        try:
            listed = self.fs.find(folder, prefix=name)
        except PermissionError:
            return False
        return not any(path == full or path.startswith(f"{full}/") for path in listed)

    @property
    def _base(self) -> str:
        return self.root.strip("/") + "/"

    def _modified(self, entry: Mapping[str, Any]) -> datetime:
        known = next((entry[name] for name in MODIFIED if entry.get(name) is not None), None)
        return _utc(self.fs.modified(entry["name"]) if known is None else known)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _next(page: dict[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request for the page after an answer; empty after the last one."""
    if not answer.get("IsTruncated"):
        return {}
    marks = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
    return page | {name: answer[following] for name, following in marks.items()}


def _utc(moment: Any) -> datetime:
    """Return a time in UTC, from a timestamp, an ISO string or a datetime."""
    if isinstance(moment, int | float):
        return datetime.fromtimestamp(moment, UTC)
    parsed = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    aware: datetime = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return aware.astimezone(UTC)
