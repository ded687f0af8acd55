"""The folder of a local Ray session, and those that killed drivers left behind.

A driver holds a lock on a file in its folder as long as it lives, and the kernel drops it however
the driver ends. So a folder whose lock is free belongs to nobody; process ids would not tell that
across containers that share a temporary folder.
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
STILL_SECONDS = 60.0  # a raylet writes at least every ten seconds
OWNER = "owner"  # stands in every folder whose maker had locked it first


@contextmanager
def session_folder(parent: str) -> Iterator[str]:
    """Make a folder for the block, and drop what dead drivers left in the same place.

    Args:
        parent: an existing folder, shared with others.
    """
    _sweep(Path(parent))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        with (folder / f".{OWNER}").open("wb") as file:
            if _locked(file):
                os.rename(file.name, folder / OWNER)
            yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for owner in parent.glob(f"{PREFIX}*/{OWNER}"):
        folder = owner.parent
        with suppress(OSError):  # another driver may sweep at the same time
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            with owner.open("rb+") as file:
                if _locked(file) and _still(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _still(folder: Path) -> bool:
    """Return whether Ray's own processes, which outlive a killed driver, have stopped writing."""
    youngest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return time.time() - youngest > STILL_SECONDS


def _locked(file: IO[bytes]) -> bool:
    """Lock a file if nobody has; the lock ends with the file or the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
