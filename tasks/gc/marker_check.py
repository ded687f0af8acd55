"""Checks of markers: only a marker that fits its name and its files proves what may be deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from distill_core.errors import DataError, ShardError
from distill_core.storage.markers import Marker
from distill_core.storage.object_names import MENTIONED, data_attempt
from distill_core.storage.shard_store import ShardStore

READERS = 16  # markers that are read at once


@dataclass(frozen=True)
class Kept:
    """Something that a collection keeps although no run is known to need it."""

    path: str  # of an object, or of a folder
    reason: str


@dataclass(frozen=True)
class _Verdict:
    marker: Marker | None  # None: damaged, or gone
    problem: str = ""  # what is wrong with it
    mentions: frozenset[str] = frozenset()  # keys that a damaged marker may name


class CheckedMarkers:
    """The markers of one kind of stage that were read, divided into sound and damaged ones.

    Args:
        shard_store: of the kind.
        sizes: bytes of the kind's data files, by path.
    """

    def __init__(self, shard_store: ShardStore, sizes: Mapping[str, int]) -> None:
        self._shard_store, self._sizes = shard_store, sizes
        self.sound: dict[str, Marker] = {}  # by key
        self.damaged: list[Kept] = []
        self.protected: set[str] = set()  # keys of which no file may be removed

    def read(self, keys: Iterable[str]) -> None:
        """Read the markers of some keys and check them."""
        todo = sorted(keys)
        with ThreadPoolExecutor(READERS) as pool:
            for key, verdict in zip(todo, pool.map(self._check, todo), strict=True):
                if verdict.marker is not None:
                    self.sound[key] = verdict.marker
                    continue
                self.protected |= {key, *verdict.mentions}
                if verdict.problem:
                    path = self._shard_store.marker_path(key)
                    self.damaged.append(Kept(path, f"damaged marker: {verdict.problem}"))

    def _check(self, key: str) -> _Verdict:
        path = self._shard_store.marker_path(key)
        try:
            data = self._shard_store.store.read(path)
        except DataError:
            return _Verdict(None)  # deleted since it was listed
        mentions = frozenset(match.decode() for match in MENTIONED.findall(data))
        try:
            marker = Marker.from_json(data, where=path)
        except (ShardError, RecursionError) as error:
            return _Verdict(None, str(error).removeprefix(f"{path}: "), mentions)
        if problem := self._misplaced(marker, key) or self._lost_files(marker):
            return _Verdict(None, problem, mentions)
        if any(info.path not in self._sizes for info in marker.files):
            return _Verdict(None)  # committed after the listing
        return _Verdict(marker)

    def _misplaced(self, marker: Marker, key: str) -> str:
        """Return in what a marker differs from its name; empty if in nothing."""
        kind = self._shard_store.stage
        if (marker.stage, marker.key) != (kind, key):
            return f"it is that of {marker.stage}/{marker.key}"
        for info in marker.files:
            name = f"{key}-{marker.token}.{info.suffix}"
            if info.path != f"{kind}/data/{name}" or data_attempt(name) is None:
                return f"it names {info.path}, which is no file of the attempt {marker.token}"
        return "" if marker.files else "it names no files"

    def _lost_files(self, marker: Marker) -> str:
        """Return which file of a marker does not exist, or has another size; empty if none."""
        for info in marker.files:
            size = self._sizes.get(info.path)
            if size is None and not self._shard_store.store.exists(info.path):
                return f"it names {info.path}, which does not exist"
            if size not in (None, info.bytes):
                return f"it names {info.path} of {info.bytes} bytes, but the file has {size}"
        return ""
