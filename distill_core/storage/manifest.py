"""Manifests: what a finished stage of a run consists of. Written last, read first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from distill_core.storage.markers import Marker
from distill_core.storage.store import Store


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """The canonical part of a marker: no attempt, host, time or file name."""

    shard: str
    key: str
    rows: int
    classes: int
    files: tuple[tuple[str, int, str], ...]  # (suffix, bytes, sha256)

    @classmethod
    def of(cls, marker: Marker) -> ManifestEntry:
        """Return the canonical part of a marker."""
        files = tuple((file.suffix, file.bytes, file.sha256) for file in marker.files)
        return cls(marker.shard, marker.key, marker.rows, marker.classes, files)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The shards of a stage in plan order. Two manifests are equal when these parts are."""

    stage: str
    entries: tuple[ManifestEntry, ...]

    @classmethod
    def of(cls, stage: str, markers: Sequence[Marker]) -> Manifest:
        """Return the manifest of committed shards."""
        return cls(stage, tuple(ManifestEntry.of(marker) for marker in markers))

    def to_json(self) -> bytes:
        """Return the manifest as it is stored."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest back."""
        tree = json.loads(data)
        return cls(
            tree["stage"],
            tuple(
                ManifestEntry(**e | {"files": tuple(tuple(f) for f in e["files"])})
                for e in tree["entries"]
            ),
        )


def manifest_path(run: str, stage: str) -> str:
    """Return where a manifest of a run stands."""
    return f"runs/{run}/{stage}.manifest.json"


def save_manifest(store: Store, run: str, manifest: Manifest) -> None:
    """Write a manifest; drivers that finish together write the same canonical bytes."""
    store.put(manifest_path(run, manifest.stage), manifest.to_json())


def load_manifest(store: Store, run: str, stage: str) -> Manifest | None:
    """Return a manifest, or None while its stage is not done."""
    path = manifest_path(run, stage)
    return Manifest.from_json(store.read(path)) if store.exists(path) else None
