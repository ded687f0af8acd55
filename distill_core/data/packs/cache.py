"""Packs on a local disk, shared by all processes of a machine and bounded in size.

A pack is kept under the digest of its bytes. It is loaded under another name, compared with that
digest, and then renamed, so whatever ends a process, no file under a final name is incomplete. A
file that is being loaded is locked by its process: the lock ends with the process, and the next one
that loads a pack deletes what is left.

Packs that were used within the last hour stay. If those of other runs leave no room, further packs
are read from the store by ranges, which costs the same bytes as a file that is read once: a dataset
that is larger than the disk does not make the cache load packs again and again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from distill_core.storage.markers import FileInfo

logger = logging.getLogger(__name__)
Load = Callable[[int, int], bytes]  # (offset, size) -> bytes of a pack in the store

KEEP_SECONDS = 3600.0  # since the last use, in which no pack is removed
WAIT_SECONDS, POLL_SECONDS = 60.0, 0.05  # while another process loads a pack
TOUCH_SECONDS = 60.0  # between two notes of a use
CHUNK_BYTES, REQUESTS = 2**23, 4  # of a pack that is loaded; at a time
SHARE = 0.5  # of the space that is free or used by packs, by default
_PACK = re.compile(r"[0-9a-f]{64}\.pack")
_LOADING = re.compile(r"\.([0-9a-f]{64})\.[0-9a-f]{16}\.loading")


@dataclass(frozen=True)
class _Loading:
    """A file that this process loads; its lock ends when it is closed."""

    path: Path
    descriptor: int


class PackCache:
    """Packs in a folder of the local disk.

    Args:
        folder: of this user alone; only files with names of packs are removed in it.
        limit: bytes that all packs may have; None: a share of what is free.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder, self._limit = folder, limit
        self._touched: dict[str, float] = {}  # by digest, when this process noted a use
        self._loads = Lock()  # one pack at a time in this process, because of its memory
        self._refused = False  # something is wrong with the disk, and was reported
        self._damaged = set[str]()  # digests of packs whose bytes in the store are others

    def read(
        self, pack: FileInfo, offset: int, size: int, *, load: Load | None = None
    ) -> bytes | None:
        """Return bytes of a pack; None: it is not here, read them from the store.

        Args:
            pack: the file.
            offset: of the first byte.
            size: number of bytes.
            load: reads the pack from the store, if it should be kept here.

        Raises:
            StorageError: the store refused while the pack was loaded.
        """
        try:
            found = self._read(pack, offset, size)
            if found is not None or load is None or self._refused or pack.sha256 in self._damaged:
                return found
            with self._loads:
                is_here = self._ensure(pack, load)
            return self._read(pack, offset, size) if is_here else None
        except OSError as error:  # the disk is full, gone or refuses: the store has it all
            self._refuse(f"{self._folder}: {error.strerror or error}")
            return None

    def drop(self, pack: FileInfo) -> None:
        """Remove a pack whose bytes are not those of the store."""
        with suppress(OSError):
            self._path(pack).unlink(missing_ok=True)

    def _path(self, pack: FileInfo) -> Path:
        return self._folder / f"{pack.sha256}.pack"

    def _read(self, pack: FileInfo, offset: int, size: int) -> bytes | None:
        path = self._path(pack)
        try:
            # Another user's folder may hold what blocks or leads elsewhere.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with os.fdopen(os.open(path, flags), "rb") as stream:
                if os.fstat(stream.fileno()).st_size != pack.bytes:
                    path.unlink(missing_ok=True)
                    return None
                self._touch(pack.sha256, path)
                return os.pread(stream.fileno(), size, offset)
        except FileNotFoundError:
            return None

    def _touch(self, digest: str, path: Path) -> None:
        now = time.monotonic()
        if now - self._touched.get(digest, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[digest] = now
            with suppress(FileNotFoundError):
                os.utime(path)

    def _ensure(self, pack: FileInfo, load: Load) -> bool:
        """Load a pack unless another process does; return whether it is here now."""
        ends = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < ends:
            with self._locked():
                if self._path(pack).exists():
                    return True
                loading = set(self._alive())
                if pack.sha256 not in loading:
                    if not self._make_room(pack.bytes):
                        return False
                    mine = self._begin(pack)
                    break
            time.sleep(POLL_SECONDS)
        else:
            return False
        try:
            return self._load(pack, mine, load)
        finally:
            mine.path.unlink(missing_ok=True)
            os.close(mine.descriptor)

    def _begin(self, pack: FileInfo) -> _Loading:
        """Create the file of a pack with its final size, which counts from now on."""
        path = self._folder / f".{pack.sha256}.{secrets.token_hex(8)}.loading"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, pack.bytes)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return _Loading(path, descriptor)

    def _load(self, pack: FileInfo, mine: _Loading, load: Load) -> bool:
        """Write a pack and give it its final name, if its bytes are right."""
        digest, place = hashlib.sha256(), 0
        starts = range(0, pack.bytes, CHUNK_BYTES)
        with ThreadPoolExecutor(REQUESTS) as pool:
            for first in range(0, len(starts), REQUESTS):
                some = starts[first : first + REQUESTS]
                for data in pool.map(lambda n: load(n, min(CHUNK_BYTES, pack.bytes - n)), some):
                    digest.update(data)
                    place += os.pwrite(mine.descriptor, data, place)
        if place != pack.bytes or digest.hexdigest() != pack.sha256:
            self._damaged.add(pack.sha256)
            return False  # reading it from the store names the image that is damaged
        os.fsync(mine.descriptor)
        mine.path.rename(self._path(pack))
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the folder, for moments only; the folder exists and is this user's."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._folder.lstat()
        if status.st_uid != os.getuid() or self._folder.is_symlink():
            raise PermissionError(0, "is a link or belongs to another user")
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _alive(self) -> Iterator[str]:
        """Yield the digests of packs that are being loaded; remove what dead processes left."""
        for path in list(self._folder.iterdir()):
            match = _LOADING.fullmatch(path.name)
            if match is None:
                continue
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                yield match[1]
            finally:
                os.close(descriptor)

    def _make_room(self, size: int) -> bool:
        """Remove packs that are not in use until one more fits; return whether it does."""
        files = [path for path in self._folder.iterdir() if _is_ours(path.name)]
        found = sorted((s.st_mtime, s.st_size, path) for path in files if (s := _status(path)))
        held = sum(size for _, size, _ in found)
        free = shutil.disk_usage(self._folder).free
        limit = int(SHARE * (free + held)) if self._limit is None else self._limit
        oldest = time.time() - KEEP_SECONDS
        removable = [each for each in found if each[0] < oldest and _PACK.fullmatch(each[2].name)]
        if held - sum(each for _, each, _ in removable) + size > limit:
            return False
        for _, each, path in removable:
            if held + size <= limit:
                break
            path.unlink(missing_ok=True)
            held -= each
        return True

    def _refuse(self, reason: str) -> None:
        if not self._refused:
            logger.warning("Packs are not kept on this disk, but read from the store: %s.", reason)
        self._refused = True


def _is_ours(name: str) -> bool:
    return bool(_PACK.fullmatch(name) or _LOADING.fullmatch(name))


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a file; None: another process removed it."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
