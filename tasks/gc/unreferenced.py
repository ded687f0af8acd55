"""The search for garbage: unreferenced shards and datasets, and remains of killed writers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from distill_core.errors import ShardError
from distill_core.storage.checkpoints import POINTER
from distill_core.storage.listing import PARTIAL, StoredFile, Upload
from distill_core.storage.markers import MARKER_SUFFIX
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.gc.references import DATASETS, Ref, References, find_references
from tasks.stages.table import sharded_kinds

PROBES = ".probe"
OTHERS = ("runs", "published")  # searched only for remains of writers
KINDS: Mapping[str, str] = {
    "shards": "shards that no run refers to",
    "attempts": "data of attempts that were lost or killed",
    "checkpoints": "checkpoints of finished or unwanted jobs",
    "datasets": "datasets that no run refers to",
    "probes": "probes of the store",
    "partial": "files that were never finished",
    "uploads": "uploads that were never finished",
}


@dataclass(frozen=True)
class Garbage:
    """One object that can be removed."""

    kind: str  # of KINDS
    path: str
    bytes: int  # 0 for uploads: their size is unknown
    since: datetime  # last write of it, or of the newest file of its owner; UTC
    owner: Ref | None = None  # a reference to it keeps the object; None: nothing does
    entry: bool = False  # makes the rest of its owner reachable
    upload: Upload | None = None


def find_garbage(store: Store) -> tuple[Garbage, ...]:
    """Return all unreferenced objects in the store's own folders, of any age.

    Objects are listed before references are read, so an object that is written later is not found.

    Raises:
        DataError: a run cannot be read, so its references are unknown.
    """
    folders = (*sharded_kinds(), DATASETS, PROBES, *OTHERS)
    listed = [file for folder in folders for file in store.files(folder, partial=True)]
    uploads = store.uploads()
    shard_stores = [ShardStore(store, kind) for kind in sharded_kinds()]
    finished = [shard_store.done() for shard_store in shard_stores]
    references = find_references(store)

    files, garbage = defaultdict[str, list[StoredFile]](list), list[Garbage]()
    for file in listed:
        if file.path.endswith(PARTIAL):
            garbage.append(_garbage("partial", file))
        else:
            files[file.path.partition("/")[0]].append(file)
    for shard_store, keys in zip(shard_stores, finished, strict=True):
        garbage += StageFiles(shard_store, files[shard_store.stage], keys, references).garbage()
    garbage += _datasets(files[DATASETS], references)
    garbage += [_garbage("probes", file) for file in files[PROBES]]
    garbage += [Garbage("uploads", u.path, 0, u.begun, upload=u) for u in uploads]
    return tuple(garbage)


class StageFiles:
    """The files that a store has of one stage.

    Args:
        shard_store: the stage.
        files: all of its files.
        finished: keys that have a marker.
        references: of all runs and releases.
    """

    def __init__(
        self,
        shard_store: ShardStore,
        files: Iterable[StoredFile],
        finished: frozenset[str],
        references: References,
    ) -> None:
        self._shard_store, self._finished, self._references = shard_store, finished, references
        self._areas: dict[str, list[StoredFile]] = defaultdict(list)
        for file in files:
            self._areas[file.path.split("/")[1]].append(file)

    def garbage(self) -> Iterator[Garbage]:
        """Yield the files that can be removed."""
        yield from self._unreferenced.values()
        yield from self._data()
        yield from self._checkpoints()

    @cached_property
    def _unreferenced(self) -> dict[str, Garbage]:
        """Return the markers of unreferenced shards, by key."""
        markers = ((_file_name(f).removesuffix(MARKER_SUFFIX), f) for f in self._areas["_done"])
        return {
            key: _garbage("shards", file, owner=self._ref(key), entry=True)
            for key, file in markers
            if self._ref(key) not in self._references
        }

    def _data(self) -> Iterator[Garbage]:
        """Yield the files of unreferenced shards, and those that no marker names."""
        for file in self._areas["data"]:
            key, token = _attempt(_file_name(file))
            if key in self._finished and token in self._lost_attempts(key):
                yield _garbage("attempts", file)
            elif marker := self._unreferenced.get(key):
                since = max(marker.since, file.modified)  # a marker never outlives its data
                yield _garbage("shards", file, since=since, owner=marker.owner)
            elif key and not self._is_complete(key):
                yield _garbage("attempts", file)

    def _is_complete(self, key: str) -> bool:
        """Return whether a shard has a marker, or a manifest that lists it."""
        return key in self._finished or self._ref(key) in self._references.listed

    def _checkpoints(self) -> Iterator[Garbage]:
        """Yield whole checkpoints of finished and of unreferenced shards."""
        for folder, files in _grouped(self._areas["checkpoints"], depth=3).items():
            key, _ = _attempt(folder)
            owner = None if key in self._finished else self._ref(key)
            if key and owner not in self._references:
                for file in files:
                    entry = _file_name(file) == POINTER
                    yield _garbage(
                        "checkpoints", file, since=_newest(files), owner=owner, entry=entry
                    )

    def _lost_attempts(self, key: str) -> frozenset[str]:
        """Return the attempts at a finished shard that its marker does not name."""
        attempts = self._attempts[key]
        if len(attempts) < 2:
            return frozenset()  # the only attempt won: the marker need not be read
        try:
            marker = self._shard_store.marker(key)
        except ShardError:
            return frozenset()  # `verify` reports it; everything is kept until it is repaired
        return attempts - {marker.token} if marker else frozenset()

    @cached_property
    def _attempts(self) -> Mapping[str, frozenset[str]]:
        """Return the tokens of the executions that left data, by key."""
        tokens_by_key: dict[str, set[str]] = defaultdict(set)
        for file in self._areas["data"]:
            key, token = _attempt(_file_name(file))
            tokens_by_key[key].add(token)
        return {key: frozenset(tokens) for key, tokens in tokens_by_key.items()}

    def _ref(self, key: str) -> Ref:
        return self._shard_store.stage, key


def _datasets(files: Iterable[StoredFile], references: References) -> Iterator[Garbage]:
    """Yield the files of unreferenced datasets."""
    for dataset, parts in _grouped(files, depth=2).items():
        ref = (DATASETS, dataset)
        if ref not in references:
            for file in parts:
                entry = _file_name(file) == "index.json"
                yield _garbage("datasets", file, since=_newest(parts), owner=ref, entry=entry)


def _garbage(
    kind: str, file: StoredFile, *, since: datetime | None = None, **facts: Any
) -> Garbage:
    return Garbage(kind, file.path, file.bytes, since or file.modified, **facts)


def _grouped(files: Iterable[StoredFile], *, depth: int) -> dict[str, list[StoredFile]]:
    """Return files by the name of the folder they are in, at a depth below the store."""
    groups: dict[str, list[StoredFile]] = defaultdict(list)
    for file in files:
        parts = file.path.split("/")
        if len(parts) > depth:
            groups[parts[depth - 1]].append(file)
    return groups


def _newest(files: Iterable[StoredFile]) -> datetime:
    return max(file.modified for file in files)


def _file_name(file: StoredFile) -> str:
    return file.path.rpartition("/")[2]


def _attempt(name: str) -> tuple[str, str]:
    """Return key and token of ``<key>-<token>[.<suffix>]``; no key if it is no such name."""
    key, _, token = name.partition(".")[0].rpartition("-")
    return key, token
