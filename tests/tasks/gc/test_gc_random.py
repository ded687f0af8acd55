"""Collections of random stores, killed anywhere: shards that runs need stay, the others go."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from unittest.mock import patch
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.storage.shard_store import ShardStore, new_token
from distill_core.storage.store import Store
from tasks.gc.collect import collect
from tasks.run import Run
from tests.support.killed import Killed
from tests.support.planned import (
    SHARDED_STAGES,
    Workshop,
    checkpoint,
    commit,
    date,
    drop,
    finish,
    jobs,
    paths,
    reachable,
    stray,
    wanted,
)

NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(days=30), NOW - timedelta(days=1)


def consistent(store: Store) -> bool:
    """Return whether every marker has all of its files."""
    return all(
        store.exists(info.path)
        for stage in SHARDED_STAGES
        for key in ShardStore(store, stage).done()
        if (marker := ShardStore(store, stage).marker(key))
        for info in marker.files
    )


@contextmanager
def killed_after(deletions: int) -> Iterator[None]:
    """Let the process die before a later deletion: then nothing works, not even tidying up."""
    delete, create, done = Store.delete, Store.create, count()
    dead = False

    def deadly_delete(self: Store, path: str) -> None:
        nonlocal dead
        dead = dead or next(done) >= deletions
        if dead:
            raise Killed
        delete(self, path)

    def deadly_create(self: Store, path: str, data: bytes) -> bool:
        if dead:
            raise Killed
        return create(self, path, data)

    with (
        patch.object(Store, "delete", deadly_delete),
        patch.object(Store, "create", deadly_create),
        suppress(Killed),
    ):
        yield


class RandomStore:
    """A store with runs that share shards, runs that were given up, and what attempts left."""

    def __init__(self, workshop: Workshop, rng: random.Random) -> None:
        self.store, self._rng = Store(f"memory://{uuid4().hex}"), rng
        runs = [self._run(workshop, f"run{n}") for n in range(rng.randrange(4))]
        keys = sorted(set().union(*map(wanted, runs)))
        keys += [(rng.choice(SHARDED_STAGES), new_token()) for _ in range(3)]
        self._strays = {stray(self.store, *rng.choice(keys)) for _ in range(rng.randrange(6))}
        for _ in range(rng.randrange(6)):
            checkpoint(self.store, *rng.choice(keys))
        self.store.put(f".probe/{new_token()}", b"probe")
        self.kept = [run for run in runs if rng.random() < 0.7]
        for run in runs:
            if run not in self.kept:
                drop(run)
        self.survivors = self._survivors(self._age())

    def _run(self, workshop: Workshop, name: str) -> Run:
        """Return a run that is registered, ingested, in the middle of a stage, or done."""
        rng = self._rng
        which = (f"seed={rng.randrange(2)}", f"ipc={rng.randrange(1, 3)}")
        run = workshop.register(self.store, name, *which)
        reached = rng.randrange(-1, len(SHARDED_STAGES) + 1)
        if reached < 0:
            return run
        workshop.ingest(run)
        for stage in SHARDED_STAGES[:reached]:
            finish(run, stage)
        for stage in SHARDED_STAGES[reached : reached + 1]:
            for job in jobs(run, stage):
                if rng.random() < 0.5:
                    commit(run, stage, job)
        return run

    def _age(self) -> set[str]:
        """Make what was written together old or young; return the old."""
        units: dict[str, list[str]] = defaultdict(list)
        for path in sorted(paths(self.store)):
            units[self._unit(path)].append(path)
        old = [unit for unit in units.values() if self._rng.random() < 0.6]
        for unit in units.values():
            date(self.store, unit, OLD if unit in old else YOUNG)
        return {path for unit in old for path in unit}

    def _unit(self, path: str) -> str:
        stage, area, name = (*path.split("/"), "", "")[:3]
        if stage == "datasets":
            return area
        if area in ("_done", "data") and path not in self._strays:
            return stage + name.partition(".")[0].partition("-")[0]
        return name if area == "checkpoints" else path

    def _survivors(self, old: set[str]) -> set[str]:
        """Return what a collection has to leave."""
        living = set().union(*map(reachable, self.kept))
        wanted_keys = set().union(*map(wanted, self.kept))
        return {
            path
            for path in paths(self.store)
            if path in living or path not in old or self._useful_checkpoint(path, wanted_keys)
        }

    def _useful_checkpoint(self, path: str, keys: set[tuple[str, str]]) -> bool:
        stage, area, name = (*path.split("/"), "", "")[:3]
        key = name.partition("-")[0]
        committed = key in ShardStore(self.store, stage).done()
        return area == "checkpoints" and (stage, key) in keys and not committed


@given(seed=st.integers(0, 2**32), kill=st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_a_collection_killed_anywhere_keeps_what_runs_need_and_a_second_one_removes_the_rest(
    workshop: Workshop, seed: int, kill: int
) -> None:
    made = RandomStore(workshop, random.Random(seed))
    with killed_after(kill):
        collect(made.store, clock=lambda: NOW)
    assert made.survivors <= paths(made.store)
    assert consistent(made.store)
    collect(made.store, clock=lambda: NOW)
    assert paths(made.store) == made.survivors
    assert consistent(made.store)
    assert collect(made.store, clock=lambda: NOW).removed == ()
    assert paths(made.store) == made.survivors
    for path in paths(made.store):
        made.store.delete(path)  # stores in memory slow one another down
