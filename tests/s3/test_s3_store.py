"""A store in a bucket."""

from __future__ import annotations

from distill_core.storage.store import Store, probe


def test_a_bucket_arbitrates_between_drivers(s3_store: Store) -> None:
    assert probe(s3_store)
