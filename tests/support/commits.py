"""Commits of one small shard."""

from __future__ import annotations

from datetime import UTC, datetime

from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.shard_store import ShardStore

KEY = "ab" * 16
FILES = {"parquet": b"rows", "trace.json": b"{}"}


def commit(
    shard_store: ShardStore, files: dict[str, bytes] = FILES, *, token: str | None = None
) -> Marker:
    """Commit a shard of fixed facts."""
    return shard_store.commit(
        KEY,
        shard="c00000-00009_i000-009",
        files=files,
        facts=ShardFacts(
            rows=4, classes=2, seconds=1.23456, device="cpu", summary={"cross_entropy": 0.5}
        ),
        clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        token=token,
    )


def data_files(shard_store: ShardStore) -> tuple[str, ...]:
    """Return the names under ``data/``."""
    return shard_store.store.names("recover/data")
