"""The fixtures of the storage contract, in a bucket."""

from __future__ import annotations

import pytest

from distill_core.storage.store import Store
from tests.support.places import eager_threads, shard_store
from tests.support.s3_fixtures import s3_bucket, s3_store

__all__ = ["eager_threads", "s3_bucket", "s3_store", "shard_store"]


@pytest.fixture
def store(s3_store: Store) -> Store:
    """Return an empty store in a bucket."""
    return s3_store


@pytest.fixture
def races() -> int:
    """Return how often threads race for one object; a race costs some 16 requests here."""
    return 5
