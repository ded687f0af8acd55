"""The backend of a bucket, or of any other fsspec file system that publishes whole objects.

A server may answer 200 to an upload that was altered or cut on its way. Content-MD5 makes servers
refuse that, but not every server checks it (`filesystems.Steady` sends it). So every object is
compared after it was written: by its size and its ETag where that is the MD5 of the data, and
otherwise (encryption with KMS, stores other than S3) by reading it back.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from distill_core.storage.error_hints import code_of
from distill_core.storage.filesystems import PART_BYTES, md5
from distill_core.storage.listing import ListsObjects

MAX_CREATE_BYTES = 64 * 2**20  # well below an upload in parts, where some stores ignore conditions
UPLOADS = 3  # of one object, before the store is given up; each retries by itself, too


@dataclass(frozen=True)
class ObjectBackend(ListsObjects):
    """A bucket and prefix, or any other fsspec file system that publishes whole objects."""

    fs: Any  # fsspec has no types
    root: str
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def read(self, path: str) -> bytes:
        """Return a whole object; FileNotFoundError if there is none."""
        with self.lock:
            return bytes(self._present(self._full(path), self.fs.cat_file))

    def is_file(self, path: str) -> bool:
        """Return whether an object exists at a path; a common prefix is not an object."""
        # Not fs.isfile, which returns False on every error, including a lost connection.
        with self.lock:
            try:
                return bool(self._present(self._full(path), self.fs.info)["type"] == "file")
            except FileNotFoundError:
                return False

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is a folder) of everything directly below a prefix."""
        full = self._full(folder).rstrip("/")
        with self.lock:
            try:
                listed = self.fs.ls(full, detail=True, refresh=True)
            except FileNotFoundError:
                return
        for entry in listed:
            parent, _, name = entry["name"].rstrip("/").rpartition("/")
            if name and parent.lstrip("/") == full.lstrip("/"):
                yield name, entry["type"] == "directory"

    def put(self, path: str, data: bytes) -> None:
        """Upload an object, which the store publishes when it is complete.

        Raises:
            OSError: the store holds other bytes than it was sent, every time.
        """
        with self.lock:
            for _ in range(UPLOADS):
                self.fs.pipe_file(self._full(path), data)
                if self._holds(path, data):
                    return
        raise OSError(
            errno.EIO, f"the store holds other bytes than it was sent, {UPLOADS} times in a row"
        )

    def create(self, path: str, data: bytes) -> bool:
        """Upload an object with one conditional PUT.

        Raises:
            NotImplementedError: the store has no conditional create.
            OSError: the store holds other bytes than it was sent, every time.
        """
        if len(data) > MAX_CREATE_BYTES:
            raise ValueError(f"{path}: {len(data)} bytes, at most {MAX_CREATE_BYTES} expected")
        with self.lock:
            if not self._create(path, data):
                return False
            if not self._holds(path, data):
                self._repair(path, data)
        return True

    def delete(self, path: str) -> None:
        """Delete an object; a missing one is not an error."""
        with self.lock:
            try:
                self.fs.rm_file(self._full(path))
            except FileNotFoundError:
                return

    def _create(self, path: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(self._full(path), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # Ceph refuses with an error that s3fs does not recognise.
            if error.errno == errno.EINVAL and self.is_file(path):
                return False
            if code_of(error) == "NotImplemented":
                raise NotImplementedError(path) from error
            raise
        return True

    def _repair(self, path: str, data: bytes) -> None:
        """Replace a damaged object that we created: no other writer has this name.

        If the process dies before, readers find the damage and name the object.
        """
        try:
            self.put(path, data)
        except OSError:
            with suppress(OSError):  # drivers may lack the permission to delete markers
                self.delete(path)
            raise

    def _holds(self, path: str, data: bytes) -> bool:
        """Return whether the store has an object with exactly these bytes."""
        try:
            info = self._present(self._full(path), self.fs.info)
            if info["size"] != len(data):
                return False
            return str(info.get("ETag")).strip('"') == etag(data) or self.read(path) == data
        except FileNotFoundError:
            return False

    def _full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"


def etag(data: bytes) -> str:
    """Return the ETag that S3 gives to an object without KMS, uploaded by `filesystems.Steady`."""
    if len(data) < 2 * PART_BYTES:
        return md5(data).hex()
    parts = [md5(data[n : n + PART_BYTES]) for n in range(0, len(data), PART_BYTES)]
    return f"{md5(b''.join(parts)).hex()}-{len(parts)}"
