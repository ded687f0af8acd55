"""Fixtures of the core: one thread, and the kinds of store that the storage contract runs on."""

from __future__ import annotations

from tests.support.places import eager_threads, races, shard_store, store
from tests.support.threads import one_thread, one_thread_for_fixtures

__all__ = [
    "eager_threads",
    "one_thread",
    "one_thread_for_fixtures",
    "races",
    "shard_store",
    "store",
]
