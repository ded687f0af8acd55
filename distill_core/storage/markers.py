"""Markers: the one durable transition. A shard whose marker exists is complete.

Data first, under names that carry the attempt's random token, so that nothing is ever overwritten;
then one small JSON object by conditional create. The loser of that race reads the winner's marker
and discards its own data. Readers follow markers and manifests; they never glob (ADR 0002).
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from distill_core.errors import ShardError, StorageError
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One object of a shard."""

    suffix: str  # e.g. parquet, safetensors, trace.json
    path: str  # relative to the store
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Marker:
    """What a committed shard consists of, and how it came about."""

    key: str
    stage: str
    shard: str
    token: str
    files: tuple[FileInfo, ...]
    rows: int
    classes: int
    seconds: float
    device: str
    host: str
    finished: str  # ISO 8601, UTC
    summary: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the marker as it is stored."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Marker:
        """Read a marker back."""
        tree = json.loads(data)
        return cls(**tree | {"files": tuple(FileInfo(**file) for file in tree["files"])})

    def file(self, suffix: str) -> FileInfo:
        """Return the file with this suffix."""
        for file in self.files:
            if file.suffix == suffix:
                return file
        found = ", ".join(file.suffix for file in self.files)
        raise ShardError(f"{self.stage}/{self.shard}: no {suffix} file; its marker names {found}.")


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


def new_token() -> str:
    """Return the 128-bit random name of one attempt."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class StageShelf:
    """One stage's folder in a store: ``data/`` and ``_done/``."""

    store: Store
    stage: str

    def done(self) -> frozenset[str]:
        """Return the keys of every committed shard, from one listing."""
        names = self.store.names(f"{self.stage}/_done")
        return frozenset(n.removesuffix(".json") for n in names if n.endswith(".json"))

    def marker(self, key: str) -> Marker | None:
        """Return the marker of a key, or None while it is not done."""
        path = self._marker_path(key)
        return Marker.from_json(self.store.read(path)) if self.store.exists(path) else None

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
        token: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> Marker:
        """Publish a shard, or discard it when another attempt was first; return the winner's marker.

        Args:
            key: the shard's key.
            shard: its readable name.
            files: whole contents by suffix.
            rows: rows of the main file.
            classes: distinct classes in it.
            seconds: work spent on it.
            device: where it was made.
            summary: small JSON facts for people.
            token: name of this attempt; random by default.
            clock: gives the finishing time.
        """
        token = token or new_token()
        infos = tuple(self._put(key, token, suffix, data) for suffix, data in files.items())
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
        if self._create(marker):
            return marker
        for info in infos:
            self.store.delete(info.path)
        winner = self.marker(key)
        if winner is None:
            raise StorageError(
                f"{self.store.uri(self._marker_path(key))}: the store says it exists and cannot "
                "read it. Run `distill doctor` against this store."
            )
        return winner

    def load(self, marker: Marker, suffix: str) -> bytes:
        """Return one file of a shard, its hash checked.

        Raises:
            ShardError: the bytes are not those the marker names.
        """
        info = marker.file(suffix)
        data = self.store.read(info.path)
        if (digest := sha256(data)) != info.sha256:
            raise ShardError(
                f"{self.store.uri(info.path)}: {len(data)} bytes, sha256 {digest[:12]}, do not "
                f"match its marker ({info.bytes} bytes, sha256 {info.sha256[:12]}). Restore the "
                f"file, or delete {self._marker_path(marker.key)} to have the shard made again."
            )
        return data

    def _put(self, key: str, token: str, suffix: str, data: bytes) -> FileInfo:
        path = f"{self.stage}/data/{key}-{token}.{suffix}"
        self.store.put(path, data)
        return FileInfo(suffix, path, len(data), sha256(data))

    def _create(self, marker: Marker) -> bool:
        """Create the marker; after an ambiguous error the stored token says who won."""
        path = self._marker_path(marker.key)
        try:
            created = self.store.create(path, marker.to_json())
        except StorageError:
            stored = self.marker(marker.key)
            if stored is None:
                raise
            return stored.token == marker.token
        if created:
            return True
        # A retried PUT whose first answer was lost finds its own marker.
        stored = self.marker(marker.key)
        return stored is not None and stored.token == marker.token

    def _marker_path(self, key: str) -> str:
        return f"{self.stage}/_done/{key}.json"
