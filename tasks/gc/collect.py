"""Removing what nobody needs and what is older than a grace period, while runs go on.

Two passes, in an order that is safe wherever a kill strikes and whatever begins meanwhile:

1. What makes the rest reachable goes first: markers, descriptions of datasets, pointers. Whoever
   follows one that still stands finds every file; what a kill leaves behind is data that no marker
   names, which the next collection removes.
2. The runs are asked again. A run that had seen such a marker was registered before the marker
   went, so it is seen now, and its markers are put back. Only then data is removed, under names
   that no execution uses a second time.
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
from tasks.gc.references import Living, find_datasets, find_living
from tasks.gc.unreferenced import Garbage, find_garbage

GRACE = timedelta(days=7)
MIN_GRACE = timedelta(hours=1)  # a commit must not look abandoned while it is under way
REQUESTS = 16  # at a time


@dataclass(frozen=True)
class Collection:
    """What a collection did, or would do."""

    removed: tuple[Garbage, ...]
    waiting: tuple[Garbage, ...]  # nobody needs it either, but it is too young


def collect(
    store: Store,
    *,
    grace: timedelta = GRACE,
    clock: Callable[[], datetime] = utc_now,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Collection:
    """Remove everything that nobody needs and that is older than a grace period.

    Args:
        store: one collection at a time; runs may go on and begin meanwhile.
        grace: age by the store's clock below which nothing is touched, an hour or more.
        clock: tells what time it is, in UTC.
        dry_run: say what would go, and leave it.
        progress: told (objects removed, objects to remove).

    Raises:
        ConfigError: the grace period is too short.
        DataError: a run cannot be read, so what it needs is not known; nothing is removed.
    """
    if grace < MIN_GRACE:
        raise ConfigError(
            f"grace period {grace}: an hour or more expected, or an attempt could be removed while "
            "it is being committed."
        )
    before = clock() - grace
    found = find_garbage(store)
    old = tuple(item for item in found if item.since < before)
    waiting = tuple(item for item in found if item.since >= before)
    return Collection(old if dry_run else sweep(store, old, progress=progress), waiting)


def sweep(
    store: Store, found: Sequence[Garbage], *, progress: Progress = silent
) -> tuple[Garbage, ...]:
    """Remove garbage in two passes; return what is gone, without what a new run has saved."""
    datasets = [item for item in found if item.entry and item.kind == "datasets"]
    others = [item for item in found if item.entry and item.kind != "datasets"]
    # Datasets come second: without their descriptions no run could say what it plans.
    living = (_withdraw(store, others, find_living), _withdraw(store, datasets, find_datasets))
    gone = tuple(item for item in found if not any(item.owner in part for part in living))
    rest = [item for item in gone if not item.entry]
    for number, _ in enumerate(_each(lambda item: _remove(store, item), rest), 1):
        progress(number, len(rest))
    return gone


def _withdraw(store: Store, entries: Sequence[Garbage], ask: Callable[[Store], Living]) -> Living:
    """Delete what makes shards or datasets reachable, except what a run needs after all."""
    taken: dict[Garbage, bytes] = {}

    def take(item: Garbage) -> None:
        try:
            taken[item] = store.read(item.path)
        except DataError:
            return  # gone already
        store.delete(item.path)

    try:
        for _ in _each(take, entries):
            pass
        return _give_back(store, taken, ask)
    except BaseException:
        _put_back(store, taken)  # nobody knows who needs it
        raise


def _give_back(
    store: Store, taken: Mapping[Garbage, bytes], ask: Callable[[Store], Living]
) -> Living:
    """Put back what is needed; that may let a run plan one stage further, so ask it again."""
    while True:
        living = ask(store)
        needed = {item: data for item, data in taken.items() if item.owner in living}
        if not needed:
            return living
        _put_back(store, needed)
        taken = {item: data for item, data in taken.items() if item not in needed}


def _put_back(store: Store, taken: Mapping[Garbage, bytes]) -> None:
    lenient = replace(store, single_writer=True)  # also where nothing is created conditionally
    for item, data in taken.items():
        lenient.create(item.path, data)


def _remove(store: Store, item: Garbage) -> None:
    if item.upload is None:
        store.delete(item.path)
    else:
        store.abort(item.upload)


def _each(function: Callable[[Garbage], None], items: Iterable[Garbage]) -> Iterator[None]:
    with ThreadPoolExecutor(REQUESTS) as threads:
        yield from threads.map(function, items)
