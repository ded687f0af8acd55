"""Markers: the only durable record that a shard is complete.

A marker is a JSON file ``<stage>/_done/<key>.json``, created by `shard_store.ShardStore.commit`.
It states its own key and stage and the paths of its files, which are compared with its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from distill_core.errors import ShardError
from distill_core.storage.records import parse_json, seal_json

MARKER_SUFFIX = ".json"
REMEDY = "Delete it and run again to recreate this shard."


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
    # Versions of libraries and names of hardware that decide rounding, by what they are of
    made_with: Mapping[str, str] = field(default_factory=dict)


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
    made_with: dict[str, str] = field(default_factory=dict)  # markers of older versions have none
    # Whether the keys of later stages contain the sha256 of its files, or only its own key: so it
    # is for shards of older versions, whose labels and students keep their keys.
    keyed_by_content: bool = False

    def to_json(self) -> bytes:
        """Return the marker as indented JSON with its own digest."""
        facts = asdict(self)
        absent = [name for name in ("made_with", "keyed_by_content") if not facts[name]]
        return seal_json({k: v for k, v in facts.items() if k not in absent}, sort_keys=True)

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "marker") -> Marker:
        """Parse a stored marker.

        Raises:
            ShardError: it is not a marker, or was changed since it was written.
        """
        stored = parse_json(
            _STORED, data, where=where, what="a marker", remedy=REMEDY, error=ShardError
        )
        return cls(**{part.name: getattr(stored, part.name) for part in fields(cls)})

    def check_place(self, stage: str, key: str, *, where: str) -> None:
        """Check that the marker is that of a stage and a key, and names files of its own attempt.

        Args:
            stage: the folder that the marker was found in.
            key: the name that it was found under.
            where: its address, for messages.

        Raises:
            ShardError: a fact differs; the message names it.
        """
        expected = {"key": key, "stage": stage}
        for info in self.files:
            path = data_path(stage, key, self.token, info.suffix)
            expected |= {f"path of the {info.suffix} file": path}
        actual = {"key": self.key, "stage": self.stage}
        actual |= {f"path of the {info.suffix} file": info.path for info in self.files}
        for name, value in expected.items():
            if actual[name] != value:
                raise ShardError(
                    f"{where}: its {name} is {actual[name]!r}, expected {value!r}. {REMEDY}"
                )

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


@dataclass(frozen=True)
class _Stored(Marker):
    """A marker as it is stored."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    record_sha256: str = ""  # markers of older versions have none


_STORED: TypeAdapter[_Stored] = TypeAdapter(_Stored)


def data_path(stage: str, key: str, token: str, suffix: str) -> str:
    """Return the path of one file of an attempt at a shard."""
    return f"{stage}/data/{key}-{token}.{suffix}"
