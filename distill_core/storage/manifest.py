"""Manifests: the shards of a stage of a run, by key. A manifest is written when the stage is done.

A manifest contains only the canonical part of the markers (shard, key, rows, classes, file
hashes), so runs that made the same bytes have equal manifests, regardless of machines, times and
retries. Shards that a stage was completed without are listed, and later stages inherit the list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from distill_core.errors import DataError
from distill_core.storage.markers import Marker
from distill_core.storage.store import Store

VERSION = 1


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

    @classmethod
    def of(cls, stage: str, markers: Iterable[Marker], missing: Iterable[str] = ()) -> Manifest:
        """Return the manifest of a stage's markers, given in plan order."""
        return cls(stage, tuple(ManifestEntry.of(marker) for marker in markers), tuple(missing))

    def to_json(self) -> bytes:
        """Return the manifest as JSON, one shard per line."""
        lines = (json.dumps(asdict(entry), sort_keys=True) for entry in self.entries)
        facts = {"version": VERSION, "stage": self.stage, "missing": self.missing}
        head = json.dumps(facts)[:-1]
        return (head + ', "entries": [\n' + ",\n".join(lines) + "\n]}\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "manifest") -> Manifest:
        """Parse a stored manifest.

        Raises:
            DataError: it is not a manifest, or has another version.
        """
        try:
            tree = json.loads(data)
            if tree["version"] != VERSION:
                raise ValueError(f"version {tree['version']}, expected {VERSION}")
            entries = tuple(_entry(**entry) for entry in tree["entries"])
            return cls(tree["stage"], entries, tuple(tree.get("missing", ())))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{where}: {len(data)} bytes are not a manifest ({error}). "
                f"Delete it and run the stage again; finished shards are kept."
            ) from None


def manifest_path(run: str, stage: str) -> str:
    """Return the path of the manifest of a stage of a run."""
    return f"runs/{run}/{stage}.manifest.json"


def save_manifest(store: Store, run: str, manifest: Manifest) -> None:
    """Store the manifest of a stage of a run, which marks it as done."""
    store.put(manifest_path(run, manifest.stage), manifest.to_json())


def load_manifest(store: Store, run: str, stage: str) -> Manifest | None:
    """Return the manifest of a stage of a run, or None if the stage is not done."""
    path = manifest_path(run, stage)
    if not store.exists(path):
        return None
    return Manifest.from_json(store.read(path), where=store.uri(path))


def _entry(
    shard: str, key: str, rows: int, classes: int, files: list[tuple[str, int, str]]
) -> ManifestEntry:
    entries = tuple((suffix, size, digest) for suffix, size, digest in files)
    return ManifestEntry(shard, key, rows, classes, entries)
