"""Packs in a bucket, and on the disk of the machine that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill_core.data.packing.build import source_config
from distill_core.data.packs import cache_settings
from distill_core.data.real_images import RealImages
from distill_core.storage.store import Store
from tests.support.datasets import data_config
from tests.support.packed import ORIGINAL, packed
from tests.support.series import dataset


def test_packs_of_a_bucket_are_read_by_several_processes_and_then_from_the_disk(
    s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache_settings.FOLDER, str(tmp_path / "cache"))
    config = data_config(dataset(tmp_path / "data"), num_classes=4, pack=ORIGINAL)
    config, index = packed(config, s3_store)
    expected = RealImages(source_config(config), index, "train").resident()
    once = RealImages(config, index, "train", decoders=1)
    assert np.array_equal(once.resident(), expected)
    assert not (tmp_path / "cache").exists()
    often = RealImages(config, index, "train", decoders=2, start_pixels=0, repeated=True)
    assert np.array_equal(often.resident(), expected)
    for name in s3_store.names("pack/data"):
        if name.endswith(".pack"):
            s3_store.delete(f"pack/data/{name}")
    assert np.array_equal(once.resident(), expected)
    assert len(list((tmp_path / "cache" / "distill-packs").iterdir())) > 2
