"""A process that reads one pack through the cache of a machine; run it as a module.

Arguments: folder of the cache, file that stands for the store, file that notes each read.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from distill_core.data.packs.cache import PackCache
from distill_core.storage.digest import sha256
from distill_core.storage.markers import FileInfo

SLOW = "DISTILL_TEST_SLOW_READS"  # seconds that each read takes


def pack_of(path: Path) -> FileInfo:
    """Return the description of a pack that is a file."""
    data = path.read_bytes()
    return FileInfo("00000.pack", "pack/data/p", len(data), sha256(data))


def read_noted(store: Path, notes: Path, offset: int, size: int) -> bytes:
    """Return bytes of the store, and append a line to the notes."""
    with notes.open("a") as stream:
        stream.write(f"{offset} {size} {os.getpid()}\n")
    time.sleep(float(os.environ.get(SLOW, "0")))
    with store.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def main() -> None:
    """Print the digest of what the cache gives, or nothing."""
    folder, store, notes = map(Path, sys.argv[1:])
    pack = pack_of(store)
    data = PackCache(folder).read(
        pack, 0, pack.bytes, load=lambda offset, size: read_noted(store, notes, offset, size)
    )
    print("" if data is None else sha256(data))


if __name__ == "__main__":
    main()
