"""Manifests: the shards of a stage of a run, by key. A manifest is written when the stage is done.

A manifest contains only the canonical part of the markers (shard, key, rows, classes, file
hashes), so runs that made the same bytes have equal manifests, regardless of machines, times and
retries. Shards that a stage was completed without are listed, and later stages inherit the list.
It also records the digests of the manifests that it builds on, as they were when it was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.markers import Marker
from distill_core.storage.records import BLANK, NAME, parse_json, seal
from distill_core.storage.store import Store

VERSION = 1
REMEDY = "Delete it and run `distill resume`; finished shards are kept."


@dataclass(frozen=True)
class ManifestEntry:
    """One finished shard."""

    shard: str
    key: str
    rows: int
    classes: int
    files: tuple[tuple[str, int, str], ...]  # (suffix, bytes, sha256), by suffix

    @classmethod
    def of(cls, marker: Marker) -> ManifestEntry:
        """Return the canonical part of a marker."""
        files = sorted((info.suffix, info.bytes, info.sha256) for info in marker.files)
        return cls(marker.shard, marker.key, marker.rows, marker.classes, tuple(files))


@dataclass(frozen=True)
class Manifest:
    """A finished stage of a run."""

    stage: str  # may include an image set: recover, recover.random_real
    entries: tuple[ManifestEntry, ...]  # in plan order
    missing: tuple[str, ...] = ()  # shards left out, of this stage or of earlier ones
    # `keys.NUMERICS` when it was written: with others, the same plan has other keys. None: not
    # recorded, by an older version.
    numerics: Mapping[str, int] | None = None
    # The `digest` of each manifest of an earlier stage that it builds on, by name. None: not
    # recorded, by an older version.
    built_on: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls,
        stage: str,
        markers: Iterable[Marker],
        missing: Iterable[str] = (),
        *,
        numerics: Mapping[str, int] | None = None,
        built_on: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Return the manifest of a stage's markers, given in plan order."""
        entries = tuple(ManifestEntry.of(marker) for marker in markers)
        return cls(stage, entries, tuple(missing), numerics, built_on)

    @property
    def digest(self) -> str:
        """Return the sha256 of what it lists; it does not depend on the version that wrote it."""
        entries = [asdict(entry) for entry in self.entries]
        tree = {"stage": self.stage, "entries": entries, "missing": self.missing}
        return sha256(json.dumps(tree, sort_keys=True).encode())

    def to_json(self) -> bytes:
        """Return the manifest as JSON with its own digest, one shard per line."""
        lines = (json.dumps(asdict(entry), sort_keys=True) for entry in self.entries)
        numerics = {} if self.numerics is None else {"numerics": dict(self.numerics)}
        built_on = {} if self.built_on is None else {"built_on": dict(self.built_on)}
        facts = {"version": VERSION, "stage": self.stage, "missing": self.missing}
        facts |= {**numerics, **built_on}
        head = json.dumps({**facts, NAME: BLANK})[:-1]
        return seal(head + ', "entries": [\n' + ",\n".join(lines) + "\n]}\n")

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "manifest", sealed: bool = False) -> Manifest:
        """Parse a stored manifest.

        Args:
            data: the whole manifest.
            where: its address, for messages.
            sealed: whether it must have a digest, since its run has one.

        Raises:
            DataError: it is not a manifest, has another version, or was changed since it was
                written.
        """
        stored = parse_json(
            _STORED, data, where=where, what="a manifest", remedy=REMEDY, sealed=sealed
        )
        return cls(stored.stage, stored.entries, stored.missing, stored.numerics, stored.built_on)


@dataclass(frozen=True)
class _Stored:
    """A manifest as it is stored."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    version: Literal[1]
    stage: str
    entries: tuple[ManifestEntry, ...]
    missing: tuple[str, ...] = ()
    numerics: dict[str, int] | None = None
    built_on: dict[str, str] | None = None
    record_sha256: str = ""  # manifests of older versions have none


_STORED: TypeAdapter[_Stored] = TypeAdapter(_Stored)


def manifest_path(run: str, stage: str) -> str:
    """Return the path of the manifest of a stage of a run."""
    return f"runs/{run}/{stage}.manifest.json"


def save_manifest(store: Store, run: str, manifest: Manifest) -> None:
    """Store the manifest of a stage of a run, which marks it as done."""
    store.put(manifest_path(run, manifest.stage), manifest.to_json())


def load_manifest(store: Store, run: str, stage: str, *, sealed: bool = False) -> Manifest | None:
    """Return the manifest of a stage of a run, or None if the stage is not done.

    Args:
        store: the store.
        run: name of the run.
        stage: name of the manifest.
        sealed: whether it must have a digest, since its run has one.

    Raises:
        DataError: it is damaged, or belongs to another stage.
    """
    path = manifest_path(run, stage)
    if not store.exists(path):
        return None
    where = store.uri(path)
    manifest = Manifest.from_json(store.read(path), where=where, sealed=sealed)
    if manifest.stage != stage:
        raise DataError(
            f"{where}: a manifest of stage {manifest.stage!r}, expected {stage!r}. {REMEDY}"
        )
    return manifest
