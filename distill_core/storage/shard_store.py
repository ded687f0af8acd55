"""The shards of a stage in a store: conditional commit, lookup by key and verified loading.

Data is written under a name of this attempt alone; then ``_done/<key>.json`` is created
conditionally. The writer that creates it wins; every other writer deletes its own data and returns
the winner's marker.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from distill_core.errors import DataError, ShardError, StorageError, StorageRefused
from distill_core.storage.digest import sha256
from distill_core.storage.markers import MARKER_SUFFIX, FileInfo, Marker, ShardFacts, data_path
from distill_core.storage.store import Store

CREATE_ATTEMPTS = 3  # beyond the client's own retries: losing a finished shard costs minutes
LOAD_ATTEMPTS = 2  # a bit may flip in transit while the stored object is intact
READERS = 16  # markers that are read at once


def new_token() -> str:
    """Return the name of one execution: 128 random bits, so no two ever share a file name."""
    return secrets.token_hex(16)


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class ShardStore:
    """The folder of one stage: ``data/``, ``_done/`` and ``checkpoints/``, keyed by content."""

    store: Store
    stage: str

    def done(self) -> frozenset[str]:
        """Return the keys of all finished shards, from one list call."""
        names = self.store.names(f"{self.stage}/_done")
        return frozenset(n.removesuffix(MARKER_SUFFIX) for n in names if n.endswith(MARKER_SUFFIX))

    def marker(self, key: str) -> Marker | None:
        """Return the marker of a key, or None while it is not finished.

        Raises:
            ShardError: the marker is damaged, or belongs to another shard.
        """
        path = self.marker_path(key)
        try:
            data = self.store.read(path)
        except DataError:
            return None
        marker = Marker.from_json(data, where=self.store.uri(path))
        marker.check_place(self.stage, key, where=self.store.uri(path))
        return marker

    def markers(self, keys: Sequence[str]) -> tuple[Marker | None, ...]:
        """Return the markers of many keys, in their order, read in parallel."""
        with ThreadPoolExecutor(READERS) as pool:
            return tuple(pool.map(self.marker, keys))

    def marker_path(self, key: str) -> str:
        """Return the path of a key's marker."""
        return f"{self.stage}/_done/{key}{MARKER_SUFFIX}"

    def uri(self, key: str) -> str:
        """Return the full address of a key's marker, for messages."""
        return self.store.uri(self.marker_path(key))

    def commit(
        self,
        key: str,
        *,
        shard: str,
        files: Mapping[str, bytes],
        facts: ShardFacts,
        clock: Callable[[], datetime] = utc_now,
        token: str | None = None,
        stored: Sequence[FileInfo] = (),
    ) -> Marker:
        """Publish a shard's files; return the marker that is now stored, ours or the winner's.

        Args:
            key: content key of the shard.
            shard: its name in this run.
            files: whole contents by suffix.
            facts: about the shard; they are part of no key.
            clock: returns the time at which it was finished.
            token: name of this execution; new by default, and never used twice.
            stored: files that were written before by `put`, under the same token.

        Raises:
            StorageError: the store refused, and it is not known to hold a marker.
        """
        token = token or new_token()
        infos = (*stored, *self._put_all(key, token, files))
        marker = Marker(
            key=key,
            stage=self.stage,
            shard=shard,
            token=token,
            files=infos,
            rows=facts.rows,
            classes=facts.classes,
            seconds=round(facts.seconds, 3),
            device=facts.device,
            host=socket.gethostname(),
            finished=clock().isoformat(timespec="seconds"),
            summary=dict(facts.summary),
            made_with=dict(facts.made_with),
            keyed_by_content=True,
        )
        winner = self._settle(marker)
        if winner.token != token:
            self.discard(infos)
        return winner

    def put(self, key: str, token: str, suffix: str, data: bytes) -> FileInfo:
        """Write one file of a shard before its commit, since not all of them fit into memory."""
        path = data_path(self.stage, key, token, suffix)
        self.store.put(path, data)
        return FileInfo(suffix, path, len(data), sha256(data))

    def load(self, marker: Marker, suffix: str) -> bytes:
        """Return one file of a finished shard, hashed again.

        Raises:
            ShardError: the file is missing, or its bytes are not those of the marker.
        """
        info, origin = marker.file(suffix), self.uri(marker.key)
        remedy = f"Delete {origin} and run again to recreate this shard."
        try:
            for _ in range(LOAD_ATTEMPTS):
                if (digest := sha256(data := self.store.read(info.path))) == info.sha256:
                    return data
        except DataError:
            raise ShardError(
                f"{self.store.uri(info.path)}: no such object, but a marker lists it. {remedy}"
            ) from None
        raise ShardError(
            f"{self.store.uri(info.path)}: {len(data)} bytes, sha256 {digest[:12]}, do not "
            f"match the marker ({info.bytes} bytes, sha256 {info.sha256[:12]}). {remedy}"
        )

    def _put_all(self, key: str, token: str, files: Mapping[str, bytes]) -> tuple[FileInfo, ...]:
        infos = tuple(
            FileInfo(suffix, data_path(self.stage, key, token, suffix), len(data), sha256(data))
            for suffix, data in sorted(files.items())
        )
        try:
            for info in infos:
                self.store.put(info.path, files[info.suffix])
        except BaseException:
            self.discard(infos)
            raise
        return infos

    def _settle(self, marker: Marker) -> Marker:
        """Create the marker and return the one that is stored.

        Both answers can mislead: after a lost reply a client's own retry reports that the object
        exists, and an error may follow a request that was carried out. The token in the stored
        marker decides.
        """
        path, refusal = self.marker_path(marker.key), None
        for _ in range(CREATE_ATTEMPTS):
            try:
                if self.store.create(path, marker.to_json()):
                    return marker
            except StorageRefused:
                raise
            except StorageError as error:
                refusal = error
            if (winner := self.marker(marker.key)) is not None:
                return winner
        # The data stays: a delayed request may still create the marker. `gc` deletes it later.
        raise refusal or StorageError(
            f"{self.store.uri(path)}: the store reports that it exists, but it cannot be "
            "read. Run again; if this repeats, use another store."
        )

    def discard(self, infos: Iterable[FileInfo]) -> None:
        """Delete files that no marker will name; `gc` deletes those that cannot be deleted now."""
        for info in infos:
            with suppress(StorageError):
                self.store.delete(info.path)
