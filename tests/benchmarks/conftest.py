"""A small dataset that several comparisons read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.datasets import encoded, picture, write_parquet


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of two splits with ten classes of 32 x 32 noise."""
    for split, each in (("train", 12), ("test", 2)):
        rows = [
            (encoded(picture(100 * label + number + 50 * (split == "test"), (32, 32))), label)
            for label in range(10)
            for number in range(each)
        ]
        write_parquet(tmp_path / "images" / f"{split}.parquet", rows, row_group_size=60)
    return tmp_path / "images"
