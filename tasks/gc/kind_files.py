"""The search for garbage among the files of one kind of stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from distill_core.storage.listing import StoredFile, Upload
from distill_core.storage.shard_store import ShardStore
from tasks.gc.grammar import Name
from tasks.gc.marker_check import CheckedMarkers, Kept
from tasks.gc.recorded_plan import Ref
from tasks.gc.references import References

Named = tuple[StoredFile, Name]


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


class KindFiles:
    """The files that a store has of one kind of stage.

    Args:
        shard_store: the kind.
        files: all of its files that have names of ours.
        finished: keys that have a marker.
        references: of all runs and releases.
        before: files that were written later are too young to be removed.
        pending: keys whose marker was not finished: the next writer may complete it, so their
            data stays until the unfinished write is removed.
    """

    def __init__(
        self,
        shard_store: ShardStore,
        files: Iterable[Named],
        finished: frozenset[str],
        references: References,
        *,
        before: datetime,
        pending: Set[str] = frozenset(),
    ) -> None:
        self._shard_store, self._finished, self._references = shard_store, finished, references
        self._before, self._pending = before, pending
        self._files: dict[str, list[Named]] = defaultdict(list)
        for file, name in files:
            self._files[name.role].append((file, name))

    def garbage(self) -> Iterator[Garbage]:
        """Yield the files that can be removed."""
        for key, file in self._unreferenced.items():
            if key not in self._markers.protected:
                yield _garbage("shards", file, owner=self._ref(key), entry=True)
        yield from self._data()
        yield from self._checkpoints()

    def kept(self) -> tuple[Kept, ...]:
        """Return the damaged markers that keep the files of their shards."""
        return tuple(self._markers.damaged)

    @cached_property
    def _unreferenced(self) -> Mapping[str, StoredFile]:
        """Return the markers of unreferenced shards, by key."""
        return {
            name.owner: file
            for file, name in self._files["marker"]
            if self._ref(name.owner) not in self._references
        }

    @cached_property
    def _markers(self) -> CheckedMarkers:
        """Read the markers that decide about files; those of other shards need not be read."""
        tokens: dict[str, set[str]] = defaultdict(set)
        orphaned_since = []
        for file, name in self._files["data"]:
            tokens[name.owner].add(name.token)
            if not self._is_complete(name.owner):
                orphaned_since.append(file.modified)
        decisive = {key for key, names in tokens.items() if len(names) > 1}
        decisive |= {name.owner for _, name in self._files["checkpoint"]} | set(self._unreferenced)
        if any(since < self._before for since in orphaned_since):
            decisive = set(self._finished)  # a damaged marker may name files of another shard
        sizes = {file.path: file.bytes for file, _ in self._files["data"]}
        checked = CheckedMarkers(self._shard_store, sizes)
        checked.read(decisive & self._finished)
        return checked

    def _data(self) -> Iterator[Garbage]:
        """Yield the files of unreferenced shards, and those that no marker names."""
        for file, name in self._files["data"]:
            key, marker = name.owner, self._markers.sound.get(name.owner)
            if key in self._markers.protected or key in self._pending:
                continue
            if marker is not None and name.token != marker.token:
                yield _garbage("attempts", file)
            elif marker is not None and (entry := self._unreferenced.get(key)):
                since = max(entry.modified, file.modified)  # a marker never outlives its data
                yield _garbage("shards", file, since=since, owner=self._ref(key))
            elif not self._is_complete(key):
                yield _garbage("attempts", file)

    def _is_complete(self, key: str) -> bool:
        """Return whether a shard has a marker, or may have had one that a run needs."""
        held = self._shard_store.stage in self._references.held
        return held or key in self._finished or self._ref(key) in self._references.listed

    def _checkpoints(self) -> Iterator[Garbage]:
        """Yield whole checkpoints of finished and of unreferenced shards."""
        attempts: dict[tuple[str, str], list[Named]] = defaultdict(list)
        for file, name in self._files["checkpoint"]:
            attempts[name.owner, name.token].append((file, name))
        for (key, _), files in attempts.items():
            owner = None if key in self._finished else self._ref(key)
            if owner not in self._references and key not in self._markers.protected:
                since = max(file.modified for file, _ in files)
                for file, name in files:
                    yield _garbage("checkpoints", file, since=since, owner=owner, entry=name.entry)

    def _ref(self, key: str) -> Ref:
        return self._shard_store.stage, key


def _garbage(
    kind: str,
    file: StoredFile,
    *,
    since: datetime | None = None,
    owner: Ref | None = None,
    entry: bool = False,
) -> Garbage:
    return Garbage(kind, file.path, file.bytes, since or file.modified, owner, entry)
