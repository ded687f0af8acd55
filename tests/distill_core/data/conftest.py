"""The fixtures of tests that ingest a dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.storage.store import Store
from tests.support.datasets import image_folder
from tests.support.places import local_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store on disk."""
    return local_store(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a dataset of two classes."""
    return image_folder(tmp_path / "data")
