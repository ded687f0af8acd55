"""Writing the data of a shard in pieces, as they fill, where not all of it fits into memory.

Pieces are written under a name of this attempt alone; `commit` publishes them together with the
other files of the shard.
"""

from __future__ import annotations

from distill_core.storage.markers import FileInfo, Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore, new_token


def piece_suffix(number: int) -> str:
    """Return the suffix of a piece of a shard by its number."""
    return f"{number:05d}.pack"


class PieceWriter:
    """One attempt at a shard; at most one piece of it is in memory, twice while it is written.

    Args:
        shard_store: of the stage.
        key: of the shard.
        piece_bytes: size at which a piece is written.
    """

    def __init__(self, shard_store: ShardStore, key: str, piece_bytes: int) -> None:
        self._shard_store, self._key, self._token = shard_store, key, new_token()
        self._piece_bytes, self._filling = piece_bytes, bytearray()
        self._pieces = 0
        self._infos: list[FileInfo] = []

    def write(self, data: bytes) -> None:
        """Take the next bytes of a stream, which is cut into pieces of equal size."""
        self._filling += data
        while len(self._filling) >= self._piece_bytes:
            self._put_piece(bytes(self._filling[: self._piece_bytes]))
            del self._filling[: self._piece_bytes]

    def append(self, data: bytes) -> tuple[int, int]:
        """Take bytes that lie in one piece; return its number and their offset in it."""
        if self._filling and len(self._filling) + len(data) > self._piece_bytes:
            self.flush()
        place = (self._pieces, len(self._filling))
        self._filling += data
        return place

    def flush(self) -> None:
        """Write what is in memory as a piece."""
        if self._filling:
            self._put_piece(bytes(self._filling))
            self._filling.clear()

    def put(self, suffix: str, data: bytes) -> None:
        """Write another file of the shard; writing the same bytes again has no effect."""
        info = self._shard_store.put(self._key, self._token, suffix, data)
        self._infos = [each for each in self._infos if each.suffix != suffix] + [info]

    def commit(self, shard: str, facts: ShardFacts) -> Marker:
        """Publish what was written; return the marker that is now stored, ours or the winner's.

        After an error it may be called again: the marker with the token of this attempt is ours.
        """
        return self._shard_store.commit(
            self._key, shard=shard, files={}, facts=facts, token=self._token, stored=self._infos
        )

    def discard(self) -> None:
        """Delete what was written; not after `commit`, since a marker may name it."""
        self._shard_store.discard(self._infos)

    @property
    def token(self) -> str:
        """Return the name of this attempt."""
        return self._token

    def _put_piece(self, data: bytes) -> None:
        self.put(piece_suffix(self._pieces), data)
        self._pieces += 1
