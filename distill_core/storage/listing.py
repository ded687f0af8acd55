"""What collectors and partial readers ask of a backend: everything below a folder, and byte ranges.

Also the remains of killed writers, which no reader ever sees: partial files on a disk, uploads
that never ended in a bucket.
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
)  # fsspec has no one name


@dataclass(frozen=True)
class StoredFile:
    """One object, as a listing describes it."""

    path: str  # relative to the store
    bytes: int
    modified: datetime  # UTC, by the clock of the store


@dataclass(frozen=True)
class Upload:
    """Parts of an object that was never completed; they are stored, paid for and never listed."""

    path: str  # what would have become of it, relative to the store
    id: str
    begun: datetime  # UTC


class Lists(Protocol):
    """The part of a backend that is defined here; paths are relative to its root."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, fewer where the object ends."""

    def files(self, folder: str, *, partial: bool) -> Iterator[StoredFile]:
        """Yield everything below a folder; `partial` adds local files that are being written."""

    def uploads(self) -> Iterator[Upload]:
        """Yield the uploads that were begun and never ended."""

    def abort(self, upload: Upload) -> None:
        """Drop the parts of an upload; one that is gone is fine."""


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
        """Yield every file below a folder; one that cannot be read must not pass for missing."""
        top = Path(self.root, folder)
        for parent, _, names in os.walk(top, onerror=_unless_missing, followlinks=True):
            for name in names:
                if partial or not name.endswith(PARTIAL):
                    yield from self._described(Path(parent, name))

    def uploads(self) -> Iterator[Upload]:
        """Yield nothing: what a killed writer leaves on a disk is a partial file."""
        return iter(())

    def abort(self, upload: Upload) -> None:
        """Do nothing: there are no uploads."""

    def _described(self, full: Path) -> Iterator[StoredFile]:
        try:
            found = full.stat()
        except FileNotFoundError:
            return  # it went while we looked
        path = full.relative_to(self.root).as_posix()
        yield StoredFile(path, found.st_size, _utc(found.st_mtime))


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
        """Yield every object below a prefix; nothing partial ever has a name here."""
        within = f"{self._base}{folder}".rstrip("/") + "/"
        with self.lock:
            found = self.fs.find(within.rstrip("/"), detail=True)
        for name, entry in found.items():
            full = name.lstrip("/")
            if entry["type"] == "file" and full.startswith(within):
                path = full.removeprefix(self._base)
                yield StoredFile(path, int(entry["size"]), self._modified(entry))

    def uploads(self) -> Iterator[Upload]:
        """Yield the multipart uploads below the prefix; none where there is no such thing."""
        if not hasattr(self.fs, "list_multipart_uploads"):
            return
        bucket, _, prefix = self._base.partition("/")
        page: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        while page:
            # The short cut of s3fs knows neither prefixes nor a second page.
            answer = self.fs.call_s3("list_multipart_uploads", **page)
            for entry in answer.get("Uploads") or ():
                path = entry["Key"].removeprefix(prefix)
                yield Upload(path, entry["UploadId"], _utc(entry["Initiated"]))
            page = _next(page, answer)

    def abort(self, upload: Upload) -> None:
        """Drop the parts of an upload; one that is gone is fine."""
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
    """Return what to ask for the page after an answer; nothing after the last."""
    if not answer.get("IsTruncated"):
        return {}
    marks = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
    return page | {name: answer[following] for name, following in marks.items()}


def _utc(moment: Any) -> datetime:
    """Return a time in UTC, whichever way a file system says it."""
    if isinstance(moment, int | float):
        return datetime.fromtimestamp(moment, UTC)
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    aware: datetime = found if found.tzinfo else found.replace(tzinfo=UTC)
    return aware.astimezone(UTC)
