"""Listing and range reads of a backend, for garbage collection and partial readers.

Listings can include the remains of killed writers, which readers never see: partial files on a
disk, and unfinished multipart uploads in a bucket.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
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
        """Yield everything below a folder; `partial` adds local files that are being written."""

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
        for parent, _, names in os.walk(top, onerror=_unless_missing, followlinks=True):
            for name in names:
                if partial or not name.endswith(PARTIAL):
                    yield from self._described(Path(parent, name))

    def uploads(self) -> Iterator[Upload]:
        """Yield nothing: on a disk, a killed writer leaves a partial file instead."""
        return iter(())

    def abort(self, upload: Upload) -> None:
        """Do nothing: there are no uploads."""

    def _described(self, full: Path) -> Iterator[StoredFile]:
        try:
            status = full.stat()
        except FileNotFoundError:
            return  # deleted since it was listed
        path = full.relative_to(self.root).as_posix()
        yield StoredFile(path, status.st_size, _utc(status.st_mtime))


class ListsObjects:
    """Lists a prefix of any fsspec file system."""

    fs: Any
    root: str
    lock: AbstractContextManager[Any]

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, fewer where the object ends."""
        with self.lock:
            return bytes(self.fs.cat_file(f"{self._base}{path}", start=start, end=start + length))

    def files(self, folder: str, *, partial: bool) -> Iterator[StoredFile]:
        """Yield every object below a prefix; unfinished uploads have no name here."""
        within = f"{self._base}{folder}".rstrip("/") + "/"
        with self.lock:
            entries = self.fs.find(within.rstrip("/"), detail=True)
        for name, entry in entries.items():
            full = name.lstrip("/")
            if entry["type"] == "file" and full.startswith(within):
                path = full.removeprefix(self._base)
                yield StoredFile(path, int(entry["size"]), self._modified(entry))

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
