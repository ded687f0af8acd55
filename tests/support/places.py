"""The kinds of stores that every test of the storage contract runs on.

A test with a `store` or `shard_store` argument is part of the contract: here it runs on disk and in
memory, and tests/s3/test_contract.py runs it in a bucket.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

THREADS = 16


def local_store(tmp_path: Path) -> Store:
    """Return an empty store on disk."""
    return Store(str(tmp_path / "store"))


def memory_store(_tmp_path: Path) -> Store:
    """Return an empty store in this process."""
    return Store(f"memory://{uuid4().hex}")


PLACES: dict[str, Callable[[Path], Store]] = {"local": local_store, "memory": memory_store}


@pytest.fixture(params=PLACES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store of each kind."""
    return PLACES[request.param](tmp_path)


@pytest.fixture
def races() -> int:
    """Return how often threads race for one object; a race costs milliseconds here."""
    return 60


@pytest.fixture
def shard_store(store: Store) -> ShardStore:
    """Return an empty shard store in each kind of store."""
    return ShardStore(store, "recover")


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns after microseconds: a check apart from its write then shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def objects(store: Store) -> dict[str, bytes]:
    """Return every object of a store in a folder by its path."""
    root = Path(store.url)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
