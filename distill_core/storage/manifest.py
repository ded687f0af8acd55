"""Manifests: the shards of a stage of a run, by key. A manifest is written when the stage is done.

A manifest contains only the canonical part of the markers (shard, key, rows, classes, file
hashes), so runs that made the same bytes have equal manifests, regardless of machines, times and
retries. Shards that a stage was completed without are listed, and later stages inherit the list.
It also records the digests of the manifests that it builds on, as they were when it was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

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
    keyed_by_content: bool = False  # see `Marker`

    @classmethod
    def of(cls, marker: Marker) -> ManifestEntry:
        """Return the canonical part of a marker."""
        files = sorted((info.suffix, info.bytes, info.sha256) for info in marker.files)
        return cls(
            marker.shard,
            marker.key,
            marker.rows,
            marker.classes,
            tuple(files),
            marker.keyed_by_content,
        )

    def replaced_by(self, marker: Marker) -> ManifestEntry:
        """Return the entry of a marker that was found under this entry's key later.

        With the same files, it stays what it is. With others, what was made from it is out of date.
        """
        now = ManifestEntry.of(replace(marker, shard=self.shard))
        return self if now.files == self.files else replace(now, keyed_by_content=True)

    def to_tree(self) -> dict[str, Any]:
        """Return the entry as JSON-able facts; entries of older versions keep their bytes."""
        facts = asdict(self)
        if not self.keyed_by_content:
            del facts["keyed_by_content"]
        return facts

    def sha256(self, suffix: str) -> str:
        """Return the sha256 of the file with a suffix.

        Raises:
            DataError: there is no such file.
        """
        for name, _, digest in self.files:
            if name == suffix:
                return digest
        known = ", ".join(name for name, _, _ in self.files) or "no files at all"
        raise DataError(
            f"shard {self.shard} with key {self.key}: no file {suffix!r}, its manifest lists "
            f"{known}. {REMEDY}"
        )

    def content(self, *suffixes: str) -> str:
        """Return the identity of the shard in the keys of what is made from some of its files."""
        if not self.keyed_by_content:
            return self.key
        return "-".join(self.sha256(suffix) for suffix in suffixes)


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
    # The different environments that its shards were made in, for people: see `environment`
    made_with: tuple[Mapping[str, str], ...] = field(default=(), compare=False)

    @classmethod
    def of(
        cls,
        stage: str,
        markers: Iterable[Marker],
        missing: Iterable[str] = (),
        *,
        numerics: Mapping[str, int] | None = None,
        built_on: Mapping[str, str] | None = None,
        before: Manifest | None = None,
    ) -> Manifest:
        """Return the manifest of a stage's markers, given in plan order.

        Args:
            stage: name of the manifest.
            markers: of its shards.
            missing: names of the shards that it goes on without.
            numerics: `keys.NUMERICS`.
            built_on: the `digest` of each manifest that it builds on, by name.
            before: the manifest that this one takes the place of.
        """
        markers = tuple(markers)
        known = {} if before is None else {entry.key: entry for entry in before.entries}
        entries = tuple(
            replace(known[marker.key].replaced_by(marker), shard=marker.shard)
            if marker.key in known
            else ManifestEntry.of(marker)
            for marker in markers
        )
        environments = {tuple(sorted(marker.made_with.items())) for marker in markers}
        made_with = tuple(dict(each) for each in sorted(environments) if each)
        return cls(stage, entries, tuple(missing), numerics, built_on, made_with)

    @property
    def digest(self) -> str:
        """Return the sha256 of what it lists; it does not depend on the version that wrote it."""
        entries = [entry.to_tree() for entry in self.entries]
        tree = {"stage": self.stage, "entries": entries, "missing": self.missing}
        return sha256(json.dumps(tree, sort_keys=True).encode())

    def to_json(self) -> bytes:
        """Return the manifest as JSON with its own digest, one shard per line."""
        lines = (json.dumps(entry.to_tree(), sort_keys=True) for entry in self.entries)
        numerics = {} if self.numerics is None else {"numerics": dict(self.numerics)}
        built_on = {} if self.built_on is None else {"built_on": dict(self.built_on)}
        made_with = {"made_with": self.made_with} if self.made_with else {}
        facts = {"version": VERSION, "stage": self.stage, "missing": self.missing}
        facts |= {**numerics, **built_on, **made_with}
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
        return cls(
            stored.stage,
            stored.entries,
            stored.missing,
            stored.numerics,
            stored.built_on,
            stored.made_with,
        )


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
    made_with: tuple[dict[str, str], ...] = ()
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
