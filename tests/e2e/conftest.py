"""Fixtures of the tests of re-distillation."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.storage.store import Store
from tests.support.series import Series, dataset


@pytest.fixture
def series(tmp_path: Path) -> Series:
    """Return a series in an empty store."""
    return Series(Store(str(tmp_path / "store")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder of a dataset of four small classes."""
    return dataset(tmp_path / "data")
