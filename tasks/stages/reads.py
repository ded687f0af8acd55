"""The shards of earlier stages that jobs read, and the digest that their files had in the plan.

A key contains the content of what its shard is made from (`ManifestEntry.content`), so the plan
reads manifests. A marker that is deleted and made again, by this run or by another one that shares
the shard, leaves the manifests behind. Markers that were written after a manifest are therefore
read again, which is rarely any: the listing that shows them costs one request for a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from distill_core.errors import DistillError, ShardError, StorageError
from distill_core.keys import NUMERICS, NUMERICS_OF_OLD_MANIFESTS
from distill_core.storage.digest import sha256
from distill_core.storage.manifest import Manifest, ManifestEntry
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store


@dataclass(frozen=True)
class Reads:
    """The shards of one stage that a job reads, as the plan knew them."""

    keys: tuple[str, ...]
    digest: str  # of the sha256 of all files that are read

    @classmethod
    def of(cls, entries: Sequence[ManifestEntry], *suffixes: str) -> Reads:
        """Return some shards of a manifest, of which the files with some suffixes are read."""
        files = [entry.sha256(suffix) for entry in entries for suffix in suffixes]
        return cls(tuple(entry.key for entry in entries), _digest(files))

    def markers(self, shard_store: ShardStore, *suffixes: str) -> tuple[Marker, ...]:
        """Return the markers of the shards, in order.

        Raises:
            ShardError: a marker is gone, or their files are not those of the plan.
        """
        markers = _all_there(shard_store, self.keys)
        files = [marker.file(suffix).sha256 for marker in markers for suffix in suffixes]
        if _digest(files) != self.digest:
            names = ", ".join(marker.shard for marker in markers[:3])
            more = f" and {len(markers) - 3} more" if len(markers) > 3 else ""
            raise ShardError(
                f"{shard_store.store.uri(shard_store.stage)}: {names}{more}: made again with other "
                "bytes after this job was planned. Run `distill resume`, which plans it anew."
            )
        return markers


def _digest(files: Sequence[str]) -> str:
    return sha256("\n".join(files).encode())


def _all_there(shard_store: ShardStore, keys: Sequence[str]) -> tuple[Marker, ...]:
    markers = shard_store.markers(keys)
    present = tuple(marker for marker in markers if marker is not None)
    if len(present) < len(keys):
        raise missing_marker(shard_store, keys[markers.index(None)])
    return present


def require(shard_store: ShardStore, key: str) -> Marker:
    """Return the marker of a shard that must be there."""
    marker = shard_store.marker(key)
    if marker is None:
        raise missing_marker(shard_store, key)
    return marker


def missing_marker(shard_store: ShardStore, key: str) -> ShardError:
    """Return the error about a shard that a manifest names and that has no marker."""
    return ShardError(
        f"{shard_store.uri(key)}: no such marker, though a "
        f"manifest names it. Run the {shard_store.stage} stage again under another --name."
    )


def check_weights(marker: Marker, digest: str, where: str) -> None:
    """Refuse weights that were made again with other bytes after a job was planned.

    Raises:
        ShardError: they are others; see `check_digest`.
    """
    check_digest(marker, "safetensors", digest, where)


def check_digest(marker: Marker, suffix: str, digest: str, where: str) -> None:
    """Refuse a file of a teacher that was made again with other bytes after a job was planned.

    Args:
        marker: of the teacher.
        suffix: of the file.
        digest: its sha256 in the plan.
        where: for the message.

    Raises:
        ShardError: it is another one, or gone.
    """
    if marker.file(suffix).sha256 != digest:
        raise ShardError(
            f"{where}: teacher {marker.shard} was made again with other bytes after this job was "
            "planned. Run `distill resume`, which plans it anew."
        )


def has_current_keys(manifest: Manifest) -> bool:
    """Return whether a manifest was written with the numerics of this version.

    A stage that was completed with others stays complete, with the keys that its shards had then.
    """
    numerics = manifest.numerics
    return (NUMERICS_OF_OLD_MANIFESTS if numerics is None else numerics) == NUMERICS


class MarkerTimes:
    """The times at which the markers and manifests of a store were written, by its own clock.

    Every folder is listed once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listed: dict[str, Mapping[str, datetime]] = {}  # by folder, then by path

    def current(self, path: str, manifest: Manifest, kind: str) -> Manifest:
        """Return a manifest with the files of shards that were made again since it was written.

        Args:
            path: of the manifest.
            manifest: as it is stored.
            kind: of its shards.
        """
        written = self._times(path.rpartition("/")[0]).get(path)
        if written is None:
            return manifest
        shard_store = ShardStore(self._store, kind)
        times = self._times(f"{kind}/_done")
        later = {
            entry.key
            for entry in manifest.entries
            if (time := times.get(shard_store.marker_path(entry.key))) and time >= written
        }
        if not later:
            return manifest
        found = dict(zip(later, _readable(shard_store, list(later)), strict=True))
        entries = tuple(
            entry if (marker := found.get(entry.key)) is None else entry.replaced_by(marker)
            for entry in manifest.entries
        )
        return replace(manifest, entries=entries)

    def _times(self, folder: str) -> Mapping[str, datetime]:
        if folder not in self._listed:
            files = self._store.files(folder)
            self._listed[folder] = {file.path: file.modified for file in files}
        return self._listed[folder]


def _readable(shard_store: ShardStore, keys: Sequence[str]) -> Sequence[Marker | None]:
    """Return the markers of some keys; None for all if one is damaged, which `verify` reports."""
    try:
        return shard_store.markers(keys)
    except StorageError:
        raise
    except DistillError:
        return [None] * len(keys)
