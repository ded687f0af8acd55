"""Files without a name that the processes of a machine share: each needs the same bytes in memory.

The first process that needs a file fills it, and the others open it through a process that holds
it. As the file has no name, the system frees its memory when the last of them ends, by whatever
signal. Beside it there is a small entry for each holder, in a folder of this user, which its
process locks for as long as it holds the file; the next process deletes entries that nobody locks.

A file that fits into half of the memory of the machine is kept there, whatever the size of
/dev/shm. A larger one is kept on the disk of the temporary files, whose pages the system may drop;
so is each where Python has no `os.memfd_create`.

Where files cannot be shared (no /proc, or a folder of somebody else), each process has its own.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_core.machine_share import machine_memory

Write = Callable[[bytes | memoryview], None]
FILE = re.compile(r"[0-9a-f]{16,64}\.(lock|[0-9a-f]{16})")  # names of ours, which alone are deleted
PRIVATE = 0o077  # permissions of others, of which a folder of ours gives none


class SharedFile:
    """A file that this process holds until `close`, or until nothing refers to it any more.

    Args:
        file: its descriptor, which this object closes.
        entry: locked descriptor and path of the entry of this process; None: it is not shared.
    """

    def __init__(self, file: int, entry: tuple[int, Path] | None = None) -> None:
        self.file = file
        self.size = os.fstat(file).st_size
        self.is_shared = entry is not None
        self._release = weakref.finalize(self, _release, os.getpid(), file, entry)

    def map(self) -> mmap.mmap:
        """Return the content; what is written to it stays in this process."""
        return mmap.mmap(self.file, self.size, access=mmap.ACCESS_COPY)

    def close(self) -> None:
        """Give the file up; maps of it stay valid."""
        self._release()


@dataclass(frozen=True)
class _Holder:
    """A process that holds a file, and what identifies the file there."""

    pid: int
    descriptor: int
    device: int
    inode: int
    size: int

    @classmethod
    def this(cls, file: int) -> _Holder:
        """Return this process as the holder of a file."""
        info = os.fstat(file)
        return cls(os.getpid(), file, info.st_dev, info.st_ino, info.st_size)

    def open(self) -> int | None:
        """Return a descriptor of the file; None: it is not there, e.g. in another container."""
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_CLOEXEC
            file = os.open(f"/proc/{self.pid}/fd/{self.descriptor}", flags)
            info = os.fstat(file)
            if (info.st_dev, info.st_ino, info.st_size) == (self.device, self.inode, self.size):
                return file
            os.close(file)
        return None


def shared_file(name: str, fill: Callable[[Write], None], *, size: int) -> SharedFile:
    """Return a file that all processes of this user on this machine share.

    A process waits while another one fills the file. If that ends without having filled it, the
    next one does.

    Args:
        name: 16 to 64 hexadecimal digits that stand for the content.
        fill: writes the content from the beginning, part by part.
        size: bytes of the content, roughly; decides where it is kept.

    Raises:
        OSError: there is no room for the file.
        Exception: what `fill` raises; nothing is kept then.
    """
    folder = _folder()
    if folder is None:
        return SharedFile(_filled(fill, size))
    _sweep(folder)
    with _locked(folder / f"{name}.lock"):
        file = _joined(folder, name)
        if file is None:
            file = _filled(fill, size)
        return _entered(folder, name, file)


def _folder() -> Path | None:
    """Return the folder of the entries; None: files cannot be shared here."""
    if sys.platform != "linux":
        return None
    folder = Path(tempfile.gettempdir(), f"distill-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid()
    return folder if is_ours and not info.st_mode & PRIVATE else None


def _filled(fill: Callable[[Write], None], size: int) -> int:
    """Return the descriptor of a new file without a name."""
    file = _unnamed(size)

    def write(part: bytes | memoryview) -> None:
        rest = memoryview(part).cast("B")
        while rest:
            rest = rest[os.write(file, rest) :]

    try:
        fill(write)
    except BaseException:
        os.close(file)
        raise
    return file


def _unnamed(size: int) -> int:
    """Create a file without a name, in memory or on the disk of the temporary files."""
    fits = size <= machine_memory() // 2
    in_memory = fits or shutil.disk_usage(tempfile.gettempdir()).free < size
    # macOS has no such call, nor has a Python that was built for an old glibc, as conda's.
    if in_memory and hasattr(os, "memfd_create"):
        return os.memfd_create("distill", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def _joined(folder: Path, name: str) -> int | None:
    """Open the file of a process that holds it; None: there is none."""
    for path in folder.glob(f"{name}.{'?' * 16}"):
        with suppress(OSError, ValueError, TypeError):
            if (file := _Holder(**json.loads(path.read_bytes())).open()) is not None:
                return file
    return None


def _entered(folder: Path, name: str, file: int) -> SharedFile:
    """Return a file with the entry by which others find it in this process."""
    path = folder / f"{name}.{secrets.token_hex(8)}"
    try:
        entry = _open_locked(path)
    except OSError:  # the disk is full, e.g.; then nobody joins this process
        return SharedFile(file)
    # A holder whose entry is cut, as the disk is full, is found by nobody.
    with suppress(OSError):
        os.write(entry, json.dumps(asdict(_Holder.this(file))).encode())
    return SharedFile(file, (entry, path))


def _release(owner: int, file: int, entry: tuple[int, Path] | None) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that holds it
    if entry is not None:
        entry[1].unlink(missing_ok=True)
        os.close(entry[0])
    os.close(file)


def _sweep(folder: Path) -> None:
    """Delete what processes left that were killed: files of ours that nobody locks."""
    for path in folder.iterdir():
        if FILE.fullmatch(path.name):
            with suppress(OSError):
                _delete_unlocked(path)


def _delete_unlocked(path: Path) -> None:
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(file, path):
            path.unlink()
    finally:
        os.close(file)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, whose file is there only while somebody holds it or waits for it."""
    lock = _open_locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _open_locked(path: Path) -> int:
    """Create or open a file, wait for its lock, and return its descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # deleted while this process waited


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False
