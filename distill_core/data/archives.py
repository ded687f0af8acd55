"""Decompressed archives in the store, in pieces, so that their images can be read by address.

The pieces are the bytes of the archive without compression: an image has the offset and the size
that it would have in the uncompressed file. They form a shard beside that of the part that read the
archive, and its key follows from that of the part: whatever refers to the part refers to both.
"""

from __future__ import annotations

import time

from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.pieces import PieceWriter
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

STAGE = "ingest"  # folder of the shards
PIECE_BYTES = 2**26


def archive_key(part: str) -> str:
    """Return the key of the decompressed archive that a part was read from.

    Args:
        part: key of the part.
    """
    return sha256(f"pack {part}".encode())[:32]


class ArchiveWriter:
    """Writes one archive while it is decompressed; see `compression.Sink`.

    Pieces are written as they fill, and `commit` publishes them. An archive that was committed
    before is not written again.

    Args:
        shard_store: of the stage.
        part: key of the part that reads the archive.
        name: of the part, for people.
    """

    def __init__(self, shard_store: ShardStore, part: str, name: str) -> None:
        self.part, self._name = part, name
        self._shard_store, self._key = shard_store, archive_key(part)
        self._pieces = PieceWriter(shard_store, self._key, PIECE_BYTES)
        self._since = time.perf_counter()
        self._is_stored: bool | None = None  # None: not known yet
        self._is_whole = False

    def write(self, data: bytes) -> None:
        """Take the next bytes of the archive."""
        if self._is_stored is None:
            self._is_stored = self._shard_store.marker(self._key) is not None
        if not self._is_stored:
            self._pieces.write(data)

    def close(self) -> None:
        """Note that the archive was read to its end."""
        self._is_whole = True

    def commit(self) -> None:
        """Publish the archive if one was written: it is whole and the one that was planned."""
        if self._is_stored is not False or not self._is_whole:
            return
        self._pieces.flush()
        # From here on a marker may name the pieces, even if an error is reported.
        self._is_stored = True
        seconds = time.perf_counter() - self._since
        self._pieces.commit(
            f"{self._name}-pack", ShardFacts(rows=0, classes=0, seconds=seconds, device="cpu")
        )

    def abandon(self) -> None:
        """Delete what was written, unless it is committed."""
        if not self._is_stored:
            self._pieces.discard()


class Archives:
    """The decompressed archives of a store.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store) -> None:
        self._shard_store = ShardStore(store, STAGE)
        self._markers: dict[str, Marker] = {}  # by key of the part

    def read(self, part: str, offset: int, size: int, *, where: str) -> bytes:
        """Return bytes of an archive.

        Args:
            part: key of the part that read it.
            offset: of the first byte, decompressed.
            size: number of bytes.
            where: names the image in errors.

        Raises:
            DataError: the decompressed archive is missing, or a piece of it.
            StorageError: the store refused.
        """
        pieces = self._marker(part, where).files
        data, step = bytearray(), pieces[0].bytes if pieces else 1
        for number in range(offset // step, len(pieces)):
            first = max(0, offset - number * step)
            length = min(size - len(data), pieces[number].bytes - first)
            if length <= 0:
                break
            data += self._shard_store.store.read_range(pieces[number].path, first, length)
        return bytes(data)

    def _marker(self, part: str, where: str) -> Marker:
        if part not in self._markers:
            key = archive_key(part)
            marker = self._shard_store.marker(key)
            if marker is None:
                raise DataError(
                    f"{where}: its decompressed archive {self._shard_store.uri(key)} is "
                    f"missing. Delete {self._shard_store.uri(part)} and ingest the dataset again "
                    "under another --name."
                )
            self._markers[part] = marker
        return self._markers[part]
