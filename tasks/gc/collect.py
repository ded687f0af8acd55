"""The garbage collection: removes old unreferenced objects from a store while runs go on.

It works in two passes, whose order is safe wherever it is killed and whatever starts meanwhile:

1. Entries are removed first: the markers, dataset descriptions and pointers that make the rest
   reachable. Whoever follows an entry that still exists finds every file. If the collection is
   killed, it leaves data without a marker, which the next collection removes.
2. The references of all runs are read again. A run that had read a removed marker was registered
   before that removal, so its reference is found now and the marker is restored. Only then is data
   removed; no execution uses its name a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from distill_core.errors import ConfigError, DataError
from distill_core.progress import Progress, silent
from distill_core.storage.shard_store import utc_now
from distill_core.storage.store import Store
from tasks.gc.references import References, find_dataset_references, find_references
from tasks.gc.unreferenced import Garbage, find_garbage

GRACE = timedelta(days=7)
MIN_GRACE = timedelta(hours=1)  # a commit must not look abandoned while it is under way
REQUESTS = 16  # at a time
FindReferences = Callable[[Store], References]


@dataclass(frozen=True)
class Collection:
    """The result of a collection, or of a dry run."""

    removed: tuple[Garbage, ...]
    waiting: tuple[Garbage, ...]  # unreferenced, but too young


def collect(
    store: Store,
    *,
    grace: timedelta = GRACE,
    clock: Callable[[], datetime] = utc_now,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Collection:
    """Remove every unreferenced object that is older than a grace period.

    Args:
        store: run one collection at a time; runs may continue and start meanwhile.
        grace: least age of removed objects by the store's clock; one hour or more.
        clock: returns the time in UTC.
        dry_run: list what would be removed, and remove nothing.
        progress: called with (objects removed, objects to remove).

    Raises:
        ConfigError: the grace period is too short.
        DataError: a run cannot be read, so its references are unknown; nothing is removed.
    """
    if grace < MIN_GRACE:
        raise ConfigError(
            f"grace period {grace}: expected one hour or more. With less, an attempt could be "
            "removed while it is being committed."
        )
    before = clock() - grace
    garbage = find_garbage(store)
    old = tuple(item for item in garbage if item.since < before)
    waiting = tuple(item for item in garbage if item.since >= before)
    return Collection(old if dry_run else remove(store, old, progress=progress), waiting)


def remove(
    store: Store, garbage: Sequence[Garbage], *, progress: Progress = silent
) -> tuple[Garbage, ...]:
    """Remove garbage in two passes; return what is removed, without what a new run refers to."""
    datasets = [item for item in garbage if item.entry and item.kind == "datasets"]
    others = [item for item in garbage if item.entry and item.kind != "datasets"]
    # Datasets come second: the plan of a run needs their descriptions.
    references = (
        _remove_entries(store, others, find_references),
        _remove_entries(store, datasets, find_dataset_references),
    )
    removed = tuple(item for item in garbage if not any(item.owner in part for part in references))
    rest = [item for item in removed if not item.entry]
    for number, _ in enumerate(_in_threads(lambda item: _delete(store, item), rest), 1):
        progress(number, len(rest))
    return removed


def _remove_entries(store: Store, entries: Sequence[Garbage], find: FindReferences) -> References:
    """Delete entries, restore those that a run refers to now, and return all references."""
    removed: dict[Garbage, bytes] = {}

    def remove_entry(item: Garbage) -> None:
        try:
            removed[item] = store.read(item.path)
        except DataError:
            return  # somebody else deleted it
        store.delete(item.path)

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


def _delete(store: Store, item: Garbage) -> None:
    if item.upload is None:
        store.delete(item.path)
    else:
        store.abort(item.upload)


def _in_threads(function: Callable[[Garbage], None], items: Iterable[Garbage]) -> Iterator[None]:
    with ThreadPoolExecutor(REQUESTS) as threads:
        yield from threads.map(function, items)
