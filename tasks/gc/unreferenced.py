"""Finding what nobody needs: shards, lost attempts, checkpoints, datasets, remains of writers."""

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
from tasks.gc.references import DATASETS, Living, Ref, find_living
from tasks.stages.table import sharded_kinds

PROBES = ".probe"
OTHERS = ("runs", "published")  # searched for remains of writers alone
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
    """One object that nobody needs."""

    kind: str  # of KINDS
    path: str
    bytes: int  # 0 for uploads: the store does not say
    since: datetime  # when it, or the newest part of what it belongs to, was written; UTC
    owner: Ref | None = None  # a run that refers to it saves it; nothing does if None
    entry: bool = False  # makes the rest of its owner reachable
    upload: Upload | None = None


def find_garbage(store: Store) -> tuple[Garbage, ...]:
    """Return everything in the store's own folders that nobody needs, of whatever age.

    The runs are asked after everything is listed: what came since then is not in the list.

    Raises:
        DataError: a run cannot be read, so what it needs is not known.
    """
    folders = (*sharded_kinds(), DATASETS, PROBES, *OTHERS)
    listed = [file for folder in folders for file in store.files(folder, partial=True)]
    uploads = store.uploads()
    shard_stores = [ShardStore(store, kind) for kind in sharded_kinds()]
    finished = [shard_store.done() for shard_store in shard_stores]
    living = find_living(store)

    whole, found = defaultdict(list), []
    for file in listed:
        if file.path.endswith(PARTIAL):
            found.append(_garbage("partial", file))
        else:
            whole[file.path.partition("/")[0]].append(file)
    for shard_store, keys in zip(shard_stores, finished, strict=True):
        found += Shelved(shard_store, whole[shard_store.stage], keys, living).garbage()
    found += _datasets(whole[DATASETS], living)
    found += [_garbage("probes", file) for file in whole[PROBES]]
    found += [Garbage("uploads", one.path, 0, one.begun, upload=one) for one in uploads]
    return tuple(found)


class Shelved:
    """What the store has of one stage.

    Args:
        shard_store: the stage.
        files: everything on it.
        finished: keys that have a marker.
        living: what runs and releases refer to.
    """

    def __init__(
        self,
        shard_store: ShardStore,
        files: Iterable[StoredFile],
        finished: frozenset[str],
        living: Living,
    ) -> None:
        self._shelf, self._finished, self._living = shard_store, finished, living
        self._areas: dict[str, list[StoredFile]] = defaultdict(list)
        for file in files:
            self._areas[file.path.split("/")[1]].append(file)

    def garbage(self) -> Iterator[Garbage]:
        """Yield what nobody needs."""
        yield from self._unwanted.values()
        yield from self._data()
        yield from self._checkpoints()

    @cached_property
    def _unwanted(self) -> dict[str, Garbage]:
        """Return the markers of shards that nobody refers to, by key."""
        markers = ((_last(f).removesuffix(MARKER_SUFFIX), f) for f in self._areas["_done"])
        return {
            key: _garbage("shards", file, owner=self._ref(key), entry=True)
            for key, file in markers
            if self._ref(key) not in self._living
        }

    def _data(self) -> Iterator[Garbage]:
        """Yield the files of such shards, and those that no marker names."""
        for file in self._areas["data"]:
            key, token = _attempt(_last(file))
            if key in self._finished and token in self._losers(key):
                yield _garbage("attempts", file)
            elif marker := self._unwanted.get(key):
                since = max(marker.since, file.modified)  # a marker never outlives its data
                yield _garbage("shards", file, since=since, owner=marker.owner)
            elif key and key not in self._finished and self._ref(key) not in self._living.listed:
                yield _garbage("attempts", file)

    def _checkpoints(self) -> Iterator[Garbage]:
        """Yield whole checkpoints of finished shards, and of shards that nobody refers to."""
        for folder, files in _grouped(self._areas["checkpoints"], depth=3).items():
            key, _ = _attempt(folder)
            owner = None if key in self._finished else self._ref(key)
            if key and owner not in self._living:
                for file in files:
                    entry = _last(file) == POINTER
                    yield _garbage(
                        "checkpoints", file, since=_newest(files), owner=owner, entry=entry
                    )

    def _losers(self, key: str) -> frozenset[str]:
        """Return the attempts at a finished shard that its marker does not name."""
        attempts = self._attempts[key]
        if len(attempts) < 2:
            return frozenset()  # no contest: the marker need not be read
        try:
            marker = self._shelf.marker(key)
        except ShardError:
            return frozenset()  # `verify` finds it; until it is mended everything stays
        return attempts - {marker.token} if marker else frozenset()

    @cached_property
    def _attempts(self) -> Mapping[str, frozenset[str]]:
        """Return the tokens of the executions that left data, by key."""
        found: dict[str, set[str]] = defaultdict(set)
        for file in self._areas["data"]:
            key, token = _attempt(_last(file))
            found[key].add(token)
        return {key: frozenset(tokens) for key, tokens in found.items()}

    def _ref(self, key: str) -> Ref:
        return self._shelf.stage, key


def _datasets(files: Iterable[StoredFile], living: Living) -> Iterator[Garbage]:
    """Yield whole datasets that nobody refers to."""
    for dataset, parts in _grouped(files, depth=2).items():
        ref = (DATASETS, dataset)
        if ref not in living:
            for file in parts:
                entry = _last(file) == "index.json"
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


def _last(file: StoredFile) -> str:
    return file.path.rpartition("/")[2]


def _attempt(name: str) -> tuple[str, str]:
    """Return key and token of ``<key>-<token>[.<suffix>]``; no key if it is no such name."""
    key, _, token = name.partition(".")[0].rpartition("-")
    return key, token
