"""Markers: the only durable record that a shard is complete.

A marker is a JSON file ``<stage>/_done/<key>.json``, created by `shard_store.ShardStore.commit`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from distill_core.errors import ShardError

MARKER_SUFFIX = ".json"


@dataclass(frozen=True)
class FileInfo:
    """One file of a shard."""

    suffix: str  # parquet, trace.json, safetensors, ...
    path: str  # relative to the store
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """Facts about a finished shard that its marker records beside its files."""

    rows: int  # of its main file
    classes: int  # distinct classes in it
    seconds: float  # spent on making it
    device: str  # that made it
    summary: Mapping[str, Any] = field(default_factory=dict)  # small facts for people, JSON-able


@dataclass(frozen=True)
class Marker:
    """A finished shard; its hashes and sizes match the shard's files byte by byte."""

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
        """Return the marker as indented JSON."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "marker") -> Marker:
        """Parse a stored marker.

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
                f"Delete it and run again to recreate this shard."
            ) from None

    def file(self, suffix: str) -> FileInfo:
        """Return the file with a suffix.

        Raises:
            ShardError: there is no such file.
        """
        for info in self.files:
            if info.suffix == suffix:
                return info
        known = ", ".join(info.suffix for info in self.files) or "no files at all"
        raise ShardError(
            f"{self.stage}/_done/{self.key}{MARKER_SUFFIX}: no file {suffix!r}, its marker lists "
            f"{known}. Delete the marker and run again to recreate this shard."
        )
