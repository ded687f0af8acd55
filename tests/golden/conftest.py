"""Tests of this folder compute in one thread; some read the store of an earlier version."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from distill_core.storage.store import Store
from tests.support.threads import one_thread, one_thread_for_fixtures

__all__ = ["one_thread", "one_thread_for_fixtures"]

ARCHIVE = Path(__file__).parent / "store-before-restructuring.tar.xz"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return the store of the archive; its files have the times at which they were written."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "store", filter="data")
    return Store(str(tmp_path / "store"))
