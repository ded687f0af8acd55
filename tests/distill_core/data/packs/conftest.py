"""Fixtures of the tests of packs."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.data import DataConfig
from tests.support.datasets import data_config
from tests.support.packed import ORIGINAL
from tests.support.series import dataset


@pytest.fixture
def small(tmp_path: Path) -> DataConfig:
    """Return the config of four classes of three images, with packs of two classes."""
    return data_config(dataset(tmp_path / "data"), num_classes=4, pack=ORIGINAL)
