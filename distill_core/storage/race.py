"""A race of many writers for one object, which shows whether a store arbitrates between drivers.

A store that looks whether an object exists and then writes it refuses a second create that comes
later, so `store.probe` accepts it. Only writers at the same time show that several of them win.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Barrier

from distill_core.storage.store import PROBES, Store, probe

WRITERS = 16  # of which a client of S3 sends 10 at a time
ROUNDS = 3  # the first one also opens the connections, so its requests arrive less close together
RUN_WRITERS, RUN_ROUNDS = 4, 2  # at the start of a run: twelve requests
START_SECONDS = 60  # in which all writers have to be ready


def arbitrates(store: Store) -> bool:
    """Return whether a store lets one of several drivers win, by one short race.

    Raises:
        StorageError: the store cannot be written at all, or refused a writer.
        StorageRefused: it does not list what it holds.
    """
    return probe(store) and race(store, writers=RUN_WRITERS, rounds=RUN_ROUNDS) <= 1


def race(store: Store, *, writers: int = WRITERS, rounds: int = ROUNDS) -> int:
    """Let writers create random objects, one per round, and delete them again.

    Args:
        store: one that `store.probe` accepts.
        writers: threads that create the same object at once; 2 or more.
        rounds: 1 or more; the race ends with the first round that has several winners.

    Returns:
        The number of writers that created the same object: 1 if the store arbitrates. 0 if every
        answer to a winner was lost on its way.

    Raises:
        StorageError: the store refused a writer for another reason.
    """
    strict, winners = replace(store, single_writer=False), 0
    with ThreadPoolExecutor(writers) as threads:
        for _ in range(rounds):
            winners = max(winners, _winners(strict, writers, threads))
            if winners > 1:
                break
    return winners


def _winners(store: Store, writers: int, threads: ThreadPoolExecutor) -> int:
    path, start = f"{PROBES}/{secrets.token_hex(16)}", Barrier(writers)

    def create() -> bool:
        start.wait(START_SECONDS)
        return store.create(path, b"probe")

    attempts = [threads.submit(create) for _ in range(writers)]
    wait(attempts)  # also if one is refused: a write after the deletion would stay
    store.delete(path)
    return sum(attempt.result() for attempt in attempts)
