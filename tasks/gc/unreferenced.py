"""The search for garbage: unreferenced shards and datasets, and remains of killed writers.

Only objects with a name of `grammar` are garbage. Everything else in the folders of the store is
foreign, symbolic links included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from distill_core.data.index_files import open_index
from distill_core.errors import DataError
from distill_core.storage.exclusive import CLAIM
from distill_core.storage.listing import StoredFile
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import PROBES, Store
from tasks.gc.grammar import (
    DATASETS,
    RUNS,
    SCHEDULES,
    Name,
    recognise,
    recognise_unfinished,
)
from tasks.gc.kind_files import Garbage, KindFiles, Named
from tasks.gc.marker_check import Kept
from tasks.gc.recorded_plan import MANIFEST_SUFFIX
from tasks.gc.references import PUBLISHED, References, find_references
from tasks.run import FILE as RUN_FILE
from tasks.stages.table import sharded_kinds

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
class Findings:
    """The result of a search."""

    garbage: tuple[Garbage, ...]  # of any age
    foreign: tuple[StoredFile, ...]  # in the folders of the store, but not written by this project
    kept: tuple[Kept, ...]  # by damaged records


def find_garbage(store: Store, before: datetime) -> Findings:
    """Return all unreferenced objects in the store's own folders.

    Objects are listed before references are read, so an object that is written later is not found.

    Args:
        store: the store.
        before: objects that were written later are too young to be removed; fewer records are
            read for their sake.

    Raises:
        DataError: a run cannot be read, so its references are unknown.
    """
    kinds = sharded_kinds()
    listed = [
        file
        for folder in (*kinds, DATASETS, PROBES, RUNS, SCHEDULES)
        for file in store.files(folder, partial=True)
    ]
    uploads = [upload for upload in store.uploads() if recognise(upload.path)]
    shard_stores = [ShardStore(store, kind) for kind in kinds]
    finished = [shard_store.done() for shard_store in shard_stores]
    _refuse_misplaced_records(store, listed)
    references = find_references(store)

    sorted_files = _Sorted(listed)
    garbage = [_plain("partial", file) for file in sorted_files.unfinished]
    garbage += [_plain("probes", file) for file, _ in sorted_files.named[PROBES]]
    garbage += [Garbage("uploads", u.path, 0, u.begun, upload=u) for u in uploads]
    kept = [Kept(f"{kind}/", reason) for kind, reason in references.held.items()]
    for shard_store, keys in zip(shard_stores, finished, strict=True):
        kind = shard_store.stage
        if link := sorted_files.link_to_markers(kind):
            kept.append(Kept(f"{kind}/", f"{link} is a symbolic link"))
            continue
        files = KindFiles(
            shard_store,
            sorted_files.named[kind],
            keys,
            references,
            before=before,
            pending=sorted_files.pending[kind],
        )
        garbage += files.garbage()
        kept += files.kept()
    datasets = _datasets(store, sorted_files.named[DATASETS], references)
    garbage += [item for item in datasets if isinstance(item, Garbage)]
    kept += [item for item in datasets if isinstance(item, Kept)]
    return Findings(tuple(garbage), tuple(sorted_files.foreign), tuple(kept))


def _refuse_misplaced_records(store: Store, listed: Iterable[StoredFile]) -> None:
    """Refuse a store in which a run or a release was moved where its references are not read.

    Raises:
        DataError: names the first record.
    """
    misplaced = [
        file.path
        for file in listed
        if file.path.endswith((f"/{RUN_FILE}", MANIFEST_SUFFIX)) and recognise(file.path) is None
    ]
    ours = {*sharded_kinds(), DATASETS, PROBES, RUNS, SCHEDULES, PUBLISHED}
    for top in (name for name in store.folders("") if name not in ours):
        folders = (top, *(f"{top}/{name}" for name in store.folders(top)))
        records = (f"{folder}/{RUN_FILE}" for folder in folders)
        misplaced += [path for path in records if store.exists(path)]
    if misplaced:
        raise DataError(
            f"{store.uri(misplaced[0])}: the record of a run in a place where runs are not looked "
            f"for, so what it refers to is unknown and nothing is removed. Move its folder back to "
            f"{RUNS}/, or out of the store if you no longer need it."
        )


class _Sorted:
    """The files of a store by their meaning."""

    def __init__(self, listed: Iterable[StoredFile]) -> None:
        self.named: dict[str, list[Named]] = defaultdict(list)  # by first folder
        self.unfinished: list[StoredFile] = []
        # Keys of markers that were claimed and not finished, by kind: see `exclusive`.
        self.pending: dict[str, set[str]] = defaultdict(set)
        self.foreign: list[StoredFile] = []
        for file in listed:
            name = recognise(file.path) if file.regular else None
            if name is not None:
                self.named[file.path.partition("/")[0]].append((file, name))
            elif file.regular and (name := recognise_unfinished(file.path)):
                self.unfinished.append(file)
                if name.role == "marker" and f"{CLAIM}/" in file.path:
                    self.pending[file.path.partition("/")[0]].add(name.owner)
            else:
                self.foreign.append(file)

    def link_to_markers(self, kind: str) -> str | None:
        """Return the symbolic link in the place of a kind's markers; its target may be absent."""
        links = {file.path for file in self.foreign if not file.regular}
        return next((path for path in (kind, f"{kind}/_done") if path in links), None)


def _datasets(store: Store, files: Iterable[Named], references: References) -> list[Garbage | Kept]:
    """Return the files of unreferenced datasets, and the descriptions that are damaged."""
    found: list[Garbage | Kept] = []
    parts: dict[str, list[Named]] = defaultdict(list)
    for file, name in files:
        parts[name.owner].append((file, name))
    for dataset, named in parts.items():
        if (DATASETS, dataset) in references:
            continue
        if damage := _damaged_description(store, dataset, named):
            found.append(damage)
        else:
            found += _dataset(dataset, named)
    return found


def _dataset(dataset: str, files: Sequence[Named]) -> Iterator[Garbage]:
    since = max(file.modified for file, _ in files)
    for file, name in files:
        yield Garbage(DATASETS, file.path, file.bytes, since, (DATASETS, dataset), entry=name.entry)


def _damaged_description(
    store: Store, dataset: str, files: Iterable[tuple[StoredFile, Name]]
) -> Kept | None:
    """Return the description of a dataset if it is damaged, or belongs to another one."""
    for path in (file.path for file, name in files if name.entry):
        try:
            open_index(store, dataset)
        except DataError as error:
            if store.exists(path):
                return Kept(path, f"damaged: {error}")
    return None


def _plain(kind: str, file: StoredFile) -> Garbage:
    return Garbage(kind, file.path, file.bytes, file.modified)
