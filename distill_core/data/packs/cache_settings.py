"""The folder and the size of the cache of packs, as the environment of a machine sets them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from distill_core.data.packs.cache import PackCache
from distill_core.errors import ConfigError

FOLDER = "DISTILL_PACK_CACHE"  # on a local disk; the default is in the folder for temporary files
MOUNTS = Path("/proc/self/mounts")
IN_MEMORY = ("tmpfs", "ramfs")  # types of file systems
NAME = "distill-packs"  # of the folder of packs in it
BYTES = "DISTILL_PACK_CACHE_BYTES"  # at most; 0: none; the default is half of what is free


def open_cache(url: str) -> PackCache | None:
    """Return the cache of packs of a store; None: packs are read from the store alone.

    A folder for temporary files that is in memory is not used by default.

    Args:
        url: of the store; one that is a folder needs no cache.

    Raises:
        ConfigError: a variable has no usable value.
    """
    text = os.environ.get(BYTES, "")
    if text and not text.isdecimal():
        raise ConfigError(
            f"{BYTES}: {text!r}, expected a number of bytes, or 0. Correct it, or unset it."
        )
    limit = int(text) if text else None
    if "://" not in url or limit == 0:
        return None
    folder = os.environ.get(FOLDER, "")
    if folder and not Path(folder).is_absolute():
        raise ConfigError(
            f"{FOLDER}: {folder!r}, expected an absolute path. Correct it, or unset it."
        )
    if folder:
        return PackCache(Path(folder) / NAME, limit)
    temporary = Path(tempfile.gettempdir()).resolve()
    if _type_of_file_system(temporary) in IN_MEMORY:
        return None
    return PackCache(temporary / f"{NAME}-{os.getuid()}", limit)


def _type_of_file_system(folder: Path) -> str:
    """Return the type of the file system of a folder; empty where the system has no list."""
    try:
        lines = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    mounts = {Path(line[1]): line[2] for line in lines}  # the last one at a place covers others
    return next((mounts[place] for place in (folder, *folder.parents) if place in mounts), "")
