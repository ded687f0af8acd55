"""A dataset without a test split is divided by a rule when it is ingested."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from distill_core.config.split_rule import parse_rule
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import ingest
from distill_core.data.real_images import RealImages
from distill_core.data.splits.rules import chosen_images
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png, write_parquet

IMAGES = {"cat": range(12), "dog": range(20, 30)}
NAMES = {wnid: [f"{value}.png" for value in values] for wnid, values in IMAGES.items()}


def folder(root: Path) -> Path:
    """Write a folder of classes, without any folder of splits but one."""
    for wnid, values in IMAGES.items():
        (root / "all" / wnid).mkdir(parents=True)
        for value in values:
            (root / "all" / wnid / f"{value}.png").write_bytes(png(value))
    return root


def parquet(root: Path) -> Path:
    """Write the same images as one Parquet file."""
    rows = [(png(v), label) for label, values in enumerate(IMAGES.values()) for v in values]
    paths = [name for names in NAMES.values() for name in names]
    write_parquet(root / "all.parquet", rows, names=tuple(IMAGES), paths=paths)
    return root


def ingested(root: Path, text: str, **changes: object) -> DatasetIndex:
    config = data_config(root, train="all", split=text, **changes)
    return ingest(config, Store("memory://divide"))


def names_of(index: DatasetIndex, split: str) -> set[tuple[str, str]]:
    table = index.table("test" if split == "test" else "train")
    return set(zip(table["wnid"].to_pylist(), table["name"].to_pylist(), strict=True))


@pytest.mark.parametrize("text", ["fraction:0.3", "first:3", "per_class:4", "imagenet21k"])
def test_the_splits_are_those_of_the_rule_in_every_format(tmp_path: Path, text: str) -> None:
    whole = {(wnid, name) for wnid, names in NAMES.items() for name in names}
    expected = set()
    for wnid, names in NAMES.items():
        chosen = chosen_images(parse_rule(text), wnid, names)
        assert chosen is not None
        expected |= {(wnid, name) for name, test in zip(names, chosen, strict=True) if test}
    indexes = [
        ingested(folder(tmp_path / "folder"), text),
        ingested(parquet(tmp_path / "parquet"), text, format="parquet"),
    ]
    for index in indexes:
        assert names_of(index, "test") == expected
        assert names_of(index, "train") == whole - expected
    assert indexes[0].fingerprints == indexes[1].fingerprints
    assert indexes[0].test_fingerprint == indexes[1].test_fingerprint


def test_images_of_both_parts_are_read_where_they_are(tmp_path: Path) -> None:
    root = folder(tmp_path)
    index = ingested(root, "first:3")
    config = data_config(root, train="all", split="first:3")
    assert RealImages(config, index, "test").resident().shape == (6, 3, 8, 8)
    assert RealImages(config, index, "train").resident().shape == (16, 3, 8, 8)


def test_classes_that_a_rule_leaves_out_have_no_id(tmp_path: Path) -> None:
    """Of ImageNet-21K-P: more than 500 images, of which the first 50 by name are test images."""
    counts = {"a": 500, "b": 501, "c": 3, "d": 600}
    rows = [(png(label), label) for label, n in enumerate(counts.values()) for _ in range(n)]
    paths = [f"{wnid}_{number:04d}.png" for wnid, n in counts.items() for number in range(n)]
    write_parquet(
        tmp_path / "all.parquet", rows, names=tuple(counts), paths=paths, row_group_size=500
    )
    index = ingested(tmp_path, "imagenet21k_p", format="parquet")
    assert [(entry.id, entry.wnid) for entry in index.classes] == [(0, "b"), (1, "d")]
    assert index.class_sizes("train") == {"b": 451, "d": 550}
    assert index.class_sizes("test") == {"b": 50, "d": 50}
    assert {name for _, name in names_of(index, "test")} == {
        f"{wnid}_{number:04d}.png" for wnid in "bd" for number in range(50)
    }
    assert set(index.test["label"].to_pylist()) == {0, 1}
    with pytest.raises(DataError, match=r"found 2 classes, but data\.num_classes is 4"):
        ingested(tmp_path, "imagenet21k_p", format="parquet", num_classes=4)


def test_images_without_names_are_divided_by_their_places(tmp_path: Path) -> None:
    write_parquet(tmp_path / "all.parquet", [(png(n), n % 2) for n in range(20)], names=("a", "b"))
    index = ingested(tmp_path, "first:2", format="parquet")
    assert sorted(index.test["offset"].to_pylist()) == [0, 1, 2, 3]


def test_a_divided_dataset_does_not_change_when_its_images_are_read_again(tmp_path: Path) -> None:
    root = folder(tmp_path)
    before = ingested(root, "fraction:0.3")
    shutil.copytree(root, tmp_path / "copy" / "data")
    assert ingested(tmp_path / "copy" / "data", "fraction:0.3").id == before.id


def test_a_rule_that_leaves_no_test_image_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for wnid in IMAGES:
        for path in sorted((root / "all" / wnid).iterdir())[9:]:
            path.unlink()
    with pytest.raises(DataError, match="test split: no readable image of class 'cat'"):
        ingested(root, "imagenet21k")


def test_a_wrong_rule_is_refused_with_the_config() -> None:
    with pytest.raises(ValidationError, match="expected fraction:F"):
        data_config("x", split="half")
    assert "split" not in data_config("x").model_dump()
    assert data_config("x", split="first:3").model_dump()["split"] == "first:3"
