"""Stores at the end of a faulty connection to a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from distill_core.storage import filesystems
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support.fault_proxy import FaultProxy
from tests.support.s3_fixtures import s3_bucket, unique_name

__all__ = ["line", "s3_bucket", "shard_store", "store"]


@pytest.fixture
def line(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Return what lies between every new store and the server; give it rules."""
    monkeypatch.setattr(filesystems, "FIRST_WAIT_SECONDS", 0.001)
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def store(line: FaultProxy, s3_bucket: str) -> Store:
    """Return an empty store at the end of the line."""
    return Store(f"{s3_bucket}/{unique_name()}")


@pytest.fixture
def shard_store(store: Store) -> ShardStore:
    """Return an empty shard store at the end of the line."""
    return ShardStore(store, "recover")
