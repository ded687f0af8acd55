"""The garbage collection: removes old unreferenced objects from a store while runs go on.

It works in two passes, whose order is safe wherever it is killed and whatever starts meanwhile:

1. Entries are removed first: the markers, dataset descriptions and pointers that make the rest
   reachable. Whoever follows an entry that still exists finds every file. If the collection is
   killed, it leaves data without a marker, which the next collection removes.
2. The references of all runs are read again. A run that had read a removed marker was registered
   before that removal, so its reference is found now and the marker is restored. Only then is data
   removed; no execution uses its name a second time.

What proves that an object may be removed: the store has an identity, the object has a name that
only this project gives (`grammar`), no symbolic link leads to it, no marker, manifest, plan or
release names it, and it is old by the clock of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from distill_core.errors import ConfigError, DataError
from distill_core.progress import Progress, silent
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.identity import find_identity
from distill_core.storage.listing import StoredFile
from distill_core.storage.store import Store
from tasks.gc.clock import store_time
from tasks.gc.grammar import DATASETS
from tasks.gc.kind_files import Garbage
from tasks.gc.marker_check import Kept
from tasks.gc.references import References, find_dataset_references, find_references
from tasks.gc.unreferenced import find_garbage

GRACE = timedelta(days=7)
MIN_GRACE = timedelta(hours=1)  # a commit must not look abandoned while it is under way
REQUESTS = 16  # at a time
FindReferences = Callable[[Store], References]


@dataclass(frozen=True)
class Collection:
    """The result of a collection, or of a dry run."""

    removed: tuple[Garbage, ...]
    waiting: tuple[Garbage, ...]  # unreferenced, but too young
    foreign: tuple[StoredFile, ...]  # in the store's folders, but not written by this project
    kept: tuple[Kept, ...]  # since records that decide about them are damaged or missing
    now: datetime  # by the clock of the store


def survey(
    store: Store,
    *,
    grace: timedelta = GRACE,
    clock: Callable[[Store], datetime] = store_time,
) -> Collection:
    """Return what a collection would remove, and remove nothing.

    Args:
        store: the store.
        grace: least age of removed objects by the store's clock; one hour or more.
        clock: returns the time of the store, in UTC.

    Raises:
        ConfigError: the grace period is too short, or the place is not a store.
        DataError: a run, or the identity of the store, cannot be read.
    """
    if grace < MIN_GRACE:
        raise ConfigError(
            f"grace period {grace}: expected one hour or more. With less, an attempt could be "
            "removed while it is being committed."
        )
    _check_identity(store)
    now = clock(store)
    before = now - grace
    found = find_garbage(store, before)
    old = tuple(item for item in found.garbage if item.since < before)
    waiting = tuple(item for item in found.garbage if item.since >= before)
    return Collection(old, waiting, found.foreign, found.kept, now)


def collect(
    store: Store,
    *,
    grace: timedelta = GRACE,
    clock: Callable[[Store], datetime] = store_time,
    progress: Progress = silent,
) -> Collection:
    """Remove every unreferenced object that is older than a grace period.

    Args:
        store: run one collection at a time; runs may continue and start meanwhile.
        grace: see `survey`.
        clock: see `survey`.
        progress: called with (objects removed, objects to remove).

    Raises:
        ConfigError: the grace period is too short, or the place is not a store.
        DataError: a run cannot be read, so its references are unknown; nothing is removed.
    """
    found = survey(store, grace=grace, clock=clock)
    return replace(found, removed=remove(store, found.removed, progress=progress))


def _check_identity(store: Store) -> None:
    """Refuse a folder or bucket that was never used as a store.

    Raises:
        ConfigError: it has no identity.
        DataError: its identity is damaged, or is of another program.
    """
    if find_identity(store) is None:
        raise ConfigError(
            f"{store.url}: no {IDENTITY} here, so nothing shows that this is a store of distill, "
            "and nothing is removed. Check the address; if it is a store of an older version, "
            "`distill resume RUN` on one of its runs marks it as one."
        )


def remove(
    store: Store, garbage: Sequence[Garbage], *, progress: Progress = silent
) -> tuple[Garbage, ...]:
    """Remove garbage in two passes; return what is removed, without what a new run refers to."""
    datasets = [item for item in garbage if item.entry and item.kind == DATASETS]
    others = [item for item in garbage if item.entry and item.kind != DATASETS]
    # Datasets come second: the plan of a run needs their descriptions.
    references = (
        _remove_entries(store, others, find_references),
        _remove_entries(store, datasets, find_dataset_references),
    )
    unneeded = [item for item in garbage if not any(item.owner in part for part in references)]
    rest = [item for item in unneeded if not item.entry]
    behind_links = set[str]()  # that appeared since the objects were listed
    deleted = _in_threads(lambda item: _delete(store, item), rest)
    for number, (item, is_gone) in enumerate(zip(rest, deleted, strict=True), 1):
        progress(number, len(rest))
        if not is_gone:
            behind_links.add(item.path)
    return tuple(item for item in unneeded if item.path not in behind_links)


def _remove_entries(store: Store, entries: Sequence[Garbage], find: FindReferences) -> References:
    """Delete entries, restore those that a run refers to now, and return all references."""
    removed: dict[Garbage, bytes] = {}

    def remove_entry(item: Garbage) -> bool:
        try:
            removed[item] = store.read(item.path)
        except DataError:
            return True  # somebody else deleted it
        return store.delete_unlinked(item.path)

    try:
        for _ in _in_threads(remove_entry, entries):
            pass
        return _restore_referenced(store, removed, find)
    except BaseException:
        _restore(store, removed)  # the references are unknown
        raise


def _restore_referenced(
    store: Store, removed: Mapping[Garbage, bytes], find: FindReferences
) -> References:
    """Restore what is referred to; a run may then plan one more stage, so look again."""
    while True:
        references = find(store)
        needed = {item: data for item, data in removed.items() if item.owner in references}
        if not needed:
            return references
        _restore(store, needed)
        removed = {item: data for item, data in removed.items() if item not in needed}


def _restore(store: Store, removed: Mapping[Garbage, bytes]) -> None:
    lenient = replace(store, single_writer=True)  # for stores without conditional create
    for item, data in removed.items():
        lenient.create(item.path, data)


def _delete(store: Store, item: Garbage) -> bool:
    """Delete an object; return False if it lies behind a symbolic link."""
    if item.upload is None:
        return store.delete_unlinked(item.path)
    store.abort(item.upload)
    return True


def _in_threads(function: Callable[[Garbage], bool], items: Iterable[Garbage]) -> Iterator[bool]:
    with ThreadPoolExecutor(REQUESTS) as threads:
        yield from threads.map(function, items)
