"""Collections of random stores, killed anywhere: only garbage of this project goes, and all of it.

The stores have runs in any state, objects of others, links out of the store, damaged markers and
manifests, and drivers that work on between the passes of a collection.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.gc import collect as collecting
from tasks.gc.collect import collect
from tasks.gc.references import References
from tests.support.killed import Killed
from tests.support.planned import KINDS, Workshop
from tests.support.random_store import RandomStore


def consistent(store: Store) -> bool:
    """Return whether every marker has all of its files."""
    return all(
        store.exists(info.path)
        for stage in KINDS
        for key in ShardStore(store, stage).done()
        if len(key) == 32 and (marker := ShardStore(store, stage).marker(key))
        for info in marker.files
    )


@contextmanager
def killed_after(deletions: int) -> Iterator[None]:
    """Let the process die before a later deletion: then nothing works, not even tidying up."""
    delete, create, done = Store.delete_unlinked, Store.create, count()
    dead = False

    def deadly_delete(self: Store, path: str) -> bool:
        nonlocal dead
        dead = dead or next(done) >= deletions
        if dead:
            raise Killed
        return delete(self, path)

    def deadly_create(self: Store, path: str, data: bytes) -> bool:
        if dead:
            raise Killed
        return create(self, path, data)

    with (
        patch.object(Store, "delete_unlinked", deadly_delete),
        patch.object(Store, "create", deadly_create),
        suppress(Killed),
    ):
        yield


@contextmanager
def drivers_at_work(made: RandomStore) -> Iterator[None]:
    """Let drivers work before references are read again, between the two passes."""
    find = collecting.find_references

    def find_later(store: Store) -> References:
        made.work()
        return find(store)

    with patch.object(collecting, "find_references", find_later):
        yield


def check(workshop: Workshop, seed: int, kill: int) -> None:
    """Collect a random store three times: killed, whole, and after the damage is repaired."""
    with TemporaryDirectory() as folder, patch("os.fsync"):  # the machine does not crash here
        made = RandomStore(workshop, random.Random(seed), Path(folder))
        with drivers_at_work(made), killed_after(kill):
            collect(made.store)
        assert made.lost() == set()
        collect(made.store)
        assert made.lost() == set()
        assert made.young <= made.paths()
        made.repair()
        assert made.lost() == set()
        assert consistent(made.store)
        collect(made.store)
        assert made.paths() == made.survivors()
        assert consistent(made.store)
        assert collect(made.store).removed == ()
        assert made.paths() == made.survivors()


@given(seed=st.integers(0, 2**32), kill=st.integers(0, 40))
@settings(max_examples=20, deadline=None)
def test_a_collection_killed_anywhere_keeps_what_runs_need_and_a_second_one_removes_the_rest(
    workshop: Workshop, seed: int, kill: int
) -> None:
    check(workshop, seed, kill)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), kill=st.integers(0, 60))
@settings(max_examples=120, deadline=None)
def test_many_more_random_stores(workshop: Workshop, seed: int, kill: int) -> None:
    check(workshop, seed, kill)
