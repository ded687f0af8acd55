"""The folder of a local Ray session, and the removal of folders that killed drivers left.

A driver locks a file in its folder while it lives, and the kernel releases the lock however the
driver ends. So a folder whose lock is free has no owner. Process ids would not show that across
containers that share a temporary folder. The locked file begins with a line that no other program
writes: without it, a folder of a similar name is somebody else's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PREFIX = "ray-"
INACTIVE_SECONDS = 60.0  # a raylet writes at least every ten seconds
OWNER = "owner"  # the locked file, in every folder whose driver could lock it
SIGNATURE = b"distill: folder of a local Ray session\n"


@contextmanager
def session_folder(parent: str) -> Iterator[str]:
    """Make a folder for the block, and remove the folders of dead drivers beside it.

    Args:
        parent: an existing folder, shared with other drivers.
    """
    _remove_abandoned(Path(parent))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        with (folder / f".{OWNER}").open("wb", buffering=0) as file:
            file.write(SIGNATURE)
            if _try_lock(file):
                os.rename(file.name, folder / OWNER)
            yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for owner in parent.glob(f"{PREFIX}*/{OWNER}"):
        folder = owner.parent
        with suppress(OSError):  # another driver may remove it at the same time
            if folder.is_symlink() or owner.is_symlink():
                continue
            if folder.stat().st_uid != os.geteuid():
                continue
            with owner.open("rb+") as file:
                is_ours = file.read(len(SIGNATURE) + 1) == SIGNATURE
                if is_ours and _try_lock(file) and _is_inactive(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_inactive(folder: Path) -> bool:
    """Return whether Ray's processes, which outlive a killed driver, have stopped writing."""
    latest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return time.time() - latest > INACTIVE_SECONDS


def _try_lock(file: IO[bytes]) -> bool:
    """Lock a file if it is free; the lock ends with the file or the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
