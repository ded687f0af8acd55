"""Blocks of classes, and their keys: what changes them, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distill_core.config.data import DataConfig
from distill_core.config.packs import PackConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import ingest
from distill_core.data.packs import blocks
from distill_core.data.packs.blocks import block_classes, image_bytes, pack_blocks
from distill_core.storage.store import Store
from tests.support.datasets import data_config
from tests.support.series import change_class, dataset, remove_class, write_class

ORIGINAL = PackConfig(encoding="original", pack_bytes=1024)


def config(root: Path, **changes: Any) -> DataConfig:
    """Return the config of the dataset in a folder, with packs of two classes of three images."""
    count = len(list((root / "train").iterdir()))
    return data_config(root, **{"num_classes": count, "pack": ORIGINAL} | changes)


def keys(data: DataConfig, index: DatasetIndex) -> dict[str, str]:
    """Return the keys of the blocks of a dataset, by name."""
    assert data.pack is not None
    return {block.name: block.key for block in pack_blocks(index, data.pack, data)}


def ingested(data: DataConfig, store: Store, previous: DatasetIndex | None = None) -> DatasetIndex:
    """Return the index of a dataset."""
    return ingest(data, store, previous)


def test_no_row_is_read_to_plan(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config(dataset(tmp_path / "data"))
    index = ingested(data, store)
    monkeypatch.setattr(type(index.tables["train"]), "_hold", None)
    monkeypatch.setattr(type(index.tables["train"]), "blocks", None)
    assert list(keys(data, index)) == [
        "train_c00000-00001",
        "train_c00002-00003",
        "test_c00000-00003",
    ]


@pytest.mark.parametrize(
    ("images", "classes", "each", "expected"),
    [
        (1_281_167, 1000, 26_000, 4),  # 33 MB a class
        (1_281_167, 1000, 105_000, 1),
        (11_060_223, 10_450, 20_000, 8),
        (50_000, 1000, 26_000, 128),
        (50_000, 10, 2_000, 16),
        (0, 10, 2_000, 16),
        (5, 0, 2_000, 1),
    ],
)
def test_a_block_has_a_power_of_two_of_classes(
    images: int, classes: int, each: float, expected: int
) -> None:
    assert block_classes(images, classes, PackConfig(size=256), each) == expected


def test_the_size_of_an_image_is_estimated_from_the_config() -> None:
    data = data_config("/data", side=224, load="center_crop", resize=256)

    def estimate(**pack: Any) -> float:
        return image_bytes(data.model_copy(update={"pack": PackConfig(**pack)}))

    assert estimate(encoding="original") == pytest.approx(103_859, rel=0.05)
    assert estimate(size=256) == pytest.approx(26_273, rel=0.05)
    assert estimate(size=256, quality=80) == pytest.approx(18_527, rel=0.05)
    assert estimate(size=320, quality=95) == pytest.approx(52_226, rel=0.15)
    assert estimate(size=256, shape="squish") == pytest.approx(20_107, rel=0.05)


def test_a_changed_class_changes_the_key_of_its_block_alone(tmp_path: Path, store: Store) -> None:
    root = dataset(tmp_path / "data")
    data = config(root)
    first = ingested(data, store)
    change_class(root, "cat")
    second = ingested(data, store, first)
    before, after = keys(data, first), keys(data, second)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"train_c00002-00003"}


def test_another_class_leaves_the_blocks_of_others(tmp_path: Path, store: Store) -> None:
    """Test images are keyed as a whole, so those are packed again."""
    root = dataset(tmp_path / "data")
    data = config(root)
    first = ingested(data, store)
    write_class(root, "auk", seed=7)
    data = config(root)
    second = ingested(data, store, first)
    before, after = keys(data, first), keys(data, second)
    assert after["train_c00000-00001"] == before["train_c00000-00001"]
    assert after["train_c00002-00003"] == before["train_c00002-00003"]
    assert set(after) - set(before) == {"train_c00004-00004", "test_c00004-00004"}


def test_a_removed_class_leaves_the_blocks_of_others(tmp_path: Path, store: Store) -> None:
    root = dataset(tmp_path / "data")
    data = config(root)
    first = ingested(data, store)
    remove_class(root, "dog")
    second = ingested(data, store, first)
    before, after = keys(data, first), keys(data, second)
    assert after["train_c00000-00001"] == before["train_c00000-00001"]
    assert after["train_c00002-00003"] != before["train_c00002-00003"]


def test_a_dataset_that_moved_has_the_same_keys(tmp_path: Path, store: Store) -> None:
    root = dataset(tmp_path / "data")
    first = keys(config(root), ingested(config(root), store))
    shutil.move(root, tmp_path / "moved")
    moved = config(tmp_path / "moved")
    assert keys(moved, ingested(moved, store)) == first


def test_what_decides_the_bytes_is_in_the_key_and_nothing_else(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config(dataset(tmp_path / "data"))
    index = ingested(data, store)

    def key(**pack: Any) -> str:
        changed = data.model_copy(update={"pack": PackConfig(**pack)})
        return keys(changed, index)["test_c00000-00003"]

    different = [
        key(encoding="original"),
        key(size=16),
        key(size=17),
        key(size=16, quality=91),
        key(size=16, shape="squish"),
    ]
    assert len(set(different)) == len(different)
    assert key(size=16, quality=90, pack_bytes=2**20) == key(size=16)
    other = data.model_copy(update={"side": 7, "mean": (0.0, 0.0, 0.0)})
    assert keys(other, index)["test_c00000-00003"] == keys(data, index)["test_c00000-00003"]
    monkeypatch.setattr(blocks, "VERSION", 99)
    assert key(encoding="original") not in different


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pack": {}}, "pack.size is required"),
        ({"pack": {"encoding": "original", "size": 64}}, "pack.size is not allowed"),
        ({"pack": {"encoding": "original", "quality": 80}}, "pack.quality is not allowed"),
        ({"pack": {"size": 7}}, "pack.size = 7 is smaller than side = 8"),
        ({"pack": {"size": 8, "quality": 0}}, "quality"),
        (
            {"pack": {"size": 9, "shape": "squish"}, "load": "center_crop", "resize": 9},
            "shape=squish loses the proportions",
        ),
        (
            {"format": "classes", "label_space": "cifar10", "num_classes": 10}
            | {"pack": {"encoding": "original"}},
            "has no images to pack",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        data_config("/data", **changes)


def test_a_config_without_packs_is_stored_as_before() -> None:
    assert "pack" not in data_config("/data").model_dump()
    packed = data_config("/data", pack=ORIGINAL).model_dump(mode="json")
    assert packed["pack"]["encoding"] == "original"
    assert DataConfig.model_validate(packed).pack == ORIGINAL
