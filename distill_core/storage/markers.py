"""Markers: the only durable statement that a shard is done, and the commit that makes them.

Data goes up under a name of this attempt alone; then ``_done/<key>.json`` is created conditionally.
Whoever creates it has won; everyone else drops its own data and returns the winner's marker.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from distill_core.errors import DataError, ShardError, StorageError, StorageRefused
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store

CREATE_ATTEMPTS = 3  # beyond the client's own retries: losing a finished shard costs minutes
LOAD_ATTEMPTS = 2  # a bit may have flipped on the way, and stand right in the store
MARKER_SUFFIX = ".json"
READERS = 16  # markers that are read at once


@dataclass(frozen=True)
class FileInfo:
    """One file of a shard."""

    suffix: str  # parquet, trace.json, safetensors, ...
    path: str  # relative to the store
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Marker:
    """A finished shard; what stands here matches its files byte by byte."""

    key: str
    stage: str
    shard: str  # its name in the run that made it
    token: str  # of the execution that won
    files: tuple[FileInfo, ...]  # by suffix
    rows: int
    classes: int
    seconds: float
    device: str
    host: str
    finished: str  # ISO 8601, UTC
    summary: dict[str, Any] = field(default_factory=dict)  # small facts for people, JSON-able

    def to_json(self) -> bytes:
        """Return the marker as JSON that anybody can read."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "marker") -> Marker:
        """Read a marker back.

        Raises:
            ShardError: it is not a marker.
        """
        try:
            tree = json.loads(data)
            files = tuple(FileInfo(**entry) for entry in tree.pop("files"))
            return cls(files=files, **tree)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ShardError(
                f"{where}: {len(data)} bytes are not a marker ({error}). "
                f"Delete it and run again to make this shard anew."
            ) from None

    def file(self, suffix: str) -> FileInfo:
        """Return the file with a suffix.

        Raises:
            ShardError: there is none.
        """
        for info in self.files:
            if info.suffix == suffix:
                return info
        known = ", ".join(info.suffix for info in self.files) or "no files at all"
        raise ShardError(
            f"{self.stage}/_done/{self.key}{MARKER_SUFFIX}: no file {suffix!r}, its marker lists "
            f"{known}. Delete the marker and run again to make this shard anew."
        )


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
        """Return the marker of a key, or None while nobody has finished it."""
        path = self.marker_path(key)
        try:
            data = self.store.read(path)
        except DataError:
            return None
        return Marker.from_json(data, where=self.store.uri(path))

    def markers(self, keys: Sequence[str]) -> tuple[Marker | None, ...]:
        """Return the markers of many keys, in their order; a large run has thousands."""
        with ThreadPoolExecutor(READERS) as pool:
            return tuple(pool.map(self.marker, keys))

    def marker_path(self, key: str) -> str:
        """Return where the marker of a key stands."""
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
        rows: int,
        classes: int,
        seconds: float,
        device: str,
        summary: Mapping[str, Any] | None = None,
        clock: Callable[[], datetime] = utc_now,
        token: str | None = None,
    ) -> Marker:
        """Publish a shard's files; return the marker that now stands, ours or the winner's.

        Args:
            key: content key of the shard.
            shard: its name in this run.
            files: whole contents by suffix.
            rows: rows of its main file.
            classes: distinct classes in it.
            seconds: what making it took.
            device: what made it.
            summary: small facts for people, JSON-able; part of no key.
            clock: tells when it was finished.
            token: name of this execution; new by default, and never used twice.

        Raises:
            StorageError: the store refused, and it is not known to hold a marker.
        """
        token = token or new_token()
        infos = self._put_all(key, token, files)
        marker = Marker(
            key=key,
            stage=self.stage,
            shard=shard,
            token=token,
            files=infos,
            rows=rows,
            classes=classes,
            seconds=round(seconds, 3),
            device=device,
            host=socket.gethostname(),
            finished=clock().isoformat(timespec="seconds"),
            summary=dict(summary or {}),
        )
        winner = self._settle(marker)
        if winner.token != token:
            self._discard(info.path for info in infos)
        return winner

    def load(self, marker: Marker, suffix: str) -> bytes:
        """Return one file of a finished shard, hashed again.

        Raises:
            ShardError: the file is missing, or its bytes are not those of the marker.
        """
        info, origin = marker.file(suffix), self.uri(marker.key)
        remedy = f"Delete {origin} and run again to make this shard anew."
        try:
            for _ in range(LOAD_ATTEMPTS):
                if (found := sha256(data := self.store.read(info.path))) == info.sha256:
                    return data
        except DataError:
            raise ShardError(
                f"{self.store.uri(info.path)}: no such object, though a marker names it. {remedy}"
            ) from None
        raise ShardError(
            f"{self.store.uri(info.path)}: {len(data)} bytes, sha256 {found[:12]}, do not "
            f"match the marker ({info.bytes} bytes, sha256 {info.sha256[:12]}). {remedy}"
        )

    def _put_all(self, key: str, token: str, files: Mapping[str, bytes]) -> tuple[FileInfo, ...]:
        infos = tuple(
            FileInfo(suffix, f"{self.stage}/data/{key}-{token}.{suffix}", len(data), sha256(data))
            for suffix, data in sorted(files.items())
        )
        try:
            for info in infos:
                self.store.put(info.path, files[info.suffix])
        except BaseException:
            self._discard(info.path for info in infos)
            raise
        return infos

    def _settle(self, marker: Marker) -> Marker:
        """Create the marker and return the one that stands.

        Both answers can mislead: after a lost reply a client's own retry reports that the object
        exists, and an error may follow a request that was carried out. The token tells.
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
        # The data stays: a request still on its way may yet create the marker. `gc` finds it.
        raise refusal or StorageError(
            f"{self.store.uri(path)}: refused as existing, yet no such object can be read. "
            f"Run again; a store that goes on like this cannot be used."
        )

    def _discard(self, paths: Iterable[str]) -> None:
        """Drop files that no marker will name; what cannot be deleted is left to `gc`."""
        for path in paths:
            with suppress(StorageError):
                self.store.delete(path)
