"""The parts of a split: all records once, within bounds, and with a stamp that shows changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_core.config.data import DataConfig
from distill_core.data.files.local import ListedFile
from distill_core.data.readers import parts as bounds
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.parts import stamp_of
from distill_core.data.readers.record import Part, Record
from tests.support.datasets import data_config, image_folder, png, write_parquet


def dataset(root: Path, kind: str) -> DataConfig:
    image_folder(root)
    for number in range(20, 30):
        (root / "train" / "dog" / f"{number}.png").write_bytes(png(number))
    for split in ("train", "test"):
        rows = [(png(n), n % 2) for n in range(9)]
        write_parquet(root / f"{split}.parquet", rows, row_group_size=2)
    return data_config(root, format=kind)


def read(config: DataConfig, split: Any = "train") -> list[list[Record]]:
    reader = open_reader(config)
    return [list(reader.records(part, reader.classes())) for part in reader.parts(split)]


@pytest.mark.parametrize("kind", ["imagefolder", "parquet", "patterns"])
def test_small_bounds_divide_a_split_and_lose_no_record(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataset(tmp_path, kind)
    (whole,) = read(config)
    for module in ("parts", "patterns"):
        monkeypatch.setattr(f"distill_core.data.readers.{module}.PART_RECORDS", 3)
    several = read(config)
    assert len(several) > 1
    assert all(len(records) <= 3 for records in several)
    assert [record for records in several for record in records] == whole


@pytest.mark.parametrize("kind", ["digits", "imagefolder", "parquet", "patterns"])
def test_parts_have_unique_names_in_their_order_and_count_their_records(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataset(tmp_path, kind)
    monkeypatch.setattr(bounds, "PART_BYTES", 2 * len(png(0)))
    for split in ("train", "test"):
        parts = open_reader(config).parts(split)
        names = [part.name for part in parts]
        assert names == sorted(set(names))
        assert {part.split for part in parts} == {split}
        assert [part.count for part in parts] == [len(records) for records in read(config, split)]


def stamps(config: DataConfig) -> Counter[str]:
    return Counter(part.stamp for part in open_reader(config).parts("train"))


@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
def test_a_part_changes_its_stamp_with_a_file_and_no_other_part_does(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataset(tmp_path, kind)
    monkeypatch.setattr(bounds, "PART_RECORDS", 3)
    changed = tmp_path / ("train.parquet" if kind == "parquet" else "train/dog/29.png")
    before, data, times = stamps(config), changed.read_bytes(), os.stat(changed)
    assert stamps(config) == before
    changed.write_bytes(data)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))  # as tar and cp -p do
    after = stamps(config)
    different = (before - after).total()
    assert different == (before.total() if kind == "parquet" else 1)


def test_a_class_larger_than_a_part_shares_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataset(tmp_path, "imagefolder")
    monkeypatch.setattr(bounds, "PART_RECORDS", 5)
    parts: list[Part] = list(open_reader(config).parts("train"))
    assert [(part.files, part.first, part.last) for part in parts] == [
        (("train/cat",), 0, -1),
        (("train/dog",), 0, 5),
        (("train/dog",), 5, 10),
        (("train/dog",), 10, 13),
    ]


def test_a_stamp_is_the_hash_of_the_listing_as_json() -> None:
    """It is in the keys of parts, so it may not change."""
    files = [ListedFile('a/"\\\u00e4\udcff\n.jpg', 12, "etag"), ListedFile("b", -1, "")]
    text = "".join(json.dumps(file) for file in files)
    assert stamp_of(files) == hashlib.sha256(text.encode()).hexdigest()
