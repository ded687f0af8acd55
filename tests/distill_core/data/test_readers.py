from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Address, Record
from distill_core.errors import ConfigError, DataError, StorageError
from tests.support.datasets import data_config, encoded, image_folder, picture, png, write_parquet

ROWS = [(png(n), n % 2) for n in range(5)]


def everything(config: Any, split: Any = "train") -> list[Record]:
    reader = open_reader(config)
    parts, classes = reader.parts(split), reader.classes()
    records = [record for part in parts for record in reader.records(part, classes)]
    assert sum(part.count for part in parts) == len(records)
    return records


@pytest.mark.parametrize("kind", ["digits", "imagefolder", "parquet", "patterns"])
def test_fetch_returns_the_bytes_of_records_in_any_order(kind: str, tmp_path: Path) -> None:
    image_folder(tmp_path)
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", ROWS)
    config = data_config(tmp_path, format=kind)
    records = everything(config)[::-1]
    found = open_reader(config).fetch([Address(r.uri, r.offset, len(r.data)) for r in records])
    assert found == [record.data for record in records]
    assert len({record.data for record in records}) > 1


# --- image folders ---


def test_classes_are_the_folders_in_alphabetical_order(tmp_path: Path) -> None:
    image_folder(tmp_path)
    assert open_reader(data_config(tmp_path)).classes() == ("cat", "dog")
    assert [(r.label, r.uri) for r in everything(data_config(tmp_path))] == [
        *((0, f"train/cat/{n}.png") for n in range(3)),
        *((1, f"train/dog/{n}.png") for n in (10, 11, 12)),
    ]


def test_hidden_files_and_folders_are_not_seen(tmp_path: Path) -> None:
    image_folder(tmp_path)
    before = everything(data_config(tmp_path))
    for path in (".DS_Store", "cat/.DS_Store", "cat/.cache/0.png", ".trash/1.png"):
        (tmp_path / "train" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / path).write_bytes(b"x")
    assert everything(data_config(tmp_path)) == before


def test_deeper_folders_belong_to_their_class(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "train" / "cat" / "images").mkdir()
    (tmp_path / "train" / "cat" / "images" / "9.JPEG").write_bytes(png(9))
    found = {r.name: (r.label, r.problem) for r in everything(data_config(tmp_path))}
    assert found["images/9.JPEG"] == (0, "")


def test_links_to_images_and_to_folders_are_followed(tmp_path: Path) -> None:
    image_folder(tmp_path / "real")
    subset = tmp_path / "subset"
    (subset / "train" / "dog").mkdir(parents=True)
    (subset / "train" / "cat").symlink_to(tmp_path / "real" / "train" / "cat")
    (subset / "train" / "dog" / "a.png").symlink_to(tmp_path / "real" / "train" / "dog" / "10.png")
    (subset / "test").symlink_to(tmp_path / "real" / "test")
    assert [r.name for r in everything(data_config(subset))] == ["0.png", "1.png", "2.png", "a.png"]


def test_a_name_that_is_not_utf8_is_reported_in_printable_form(tmp_path: Path) -> None:
    image_folder(tmp_path)
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "train" / "cat") + b"/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system stores only UTF-8 names")
    (bad,) = (record for record in everything(data_config(tmp_path)) if record.problem)
    bad.uri.encode()
    assert "UTF-8" in bad.problem


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    (image_folder(tmp_path) / "test").rename(tmp_path / "val")
    with pytest.raises(DataError, match=r"test: no such folder, .*Set data\.test"):
        everything(data_config(tmp_path), "test")
    assert len(everything(data_config(tmp_path, test="val"), "test")) == 2


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path: Path) -> None:
    (image_folder(tmp_path) / "test" / "cow").mkdir()
    with pytest.raises(DataError, match=r"test/cow: a class that .*train"):
        everything(data_config(tmp_path), "test")


@pytest.mark.parametrize("name", ["a [1] * ?", "später"])
def test_special_characters_in_paths_have_no_meaning(tmp_path: Path, name: str) -> None:
    image_folder(tmp_path / name)
    (tmp_path / name / "train" / "cat").rename(tmp_path / name / "train" / name)
    (tmp_path / name / "test" / "cat").rename(tmp_path / name / "test" / name)
    config = data_config(tmp_path / name)
    assert name in open_reader(config).classes()
    assert len(everything(config)) == 6


@pytest.mark.parametrize("prefix", ["memory://bucket", "memory://bucket/a [1]/b/"])
def test_a_remote_folder_gives_the_same_records(tmp_path: Path, prefix: str) -> None:
    image_folder(tmp_path)
    (tmp_path / "train" / "cat" / "[z].png").write_bytes(png(8))
    (tmp_path / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    write_parquet(tmp_path / "more" / "train.parquet", ROWS)
    memory = fsspec.filesystem("memory")
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        memory.pipe_file(f"{prefix.rstrip('/')}/{path.relative_to(tmp_path)}", path.read_bytes())
    try:
        assert everything(data_config(prefix)) == everything(data_config(tmp_path))
        kind = {"format": "parquet", "train": "more/train"}
        local = everything(data_config(tmp_path, **kind))
        assert everything(data_config(prefix, **kind)) == local
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_reader(data_config(tmp_path / "nowhere"))


def test_a_path_is_required_and_its_protocol_must_be_known() -> None:
    with pytest.raises(ConfigError, match=r"data\.path: missing"):
        open_reader(data_config(None))
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_reader(data_config("quux://bucket/data"))


def test_a_path_with_another_spelling_is_refused_with_the_right_one() -> None:
    for address, spelling in (("s3://b//d", "s3://b/d"), ("memory://b//d", "memory://b/d")):
        with pytest.raises(ConfigError, match=rf"data\.path.*Write {spelling}"):
            open_reader(data_config(address))


def test_a_deleted_image_is_named(tmp_path: Path) -> None:
    reader = open_reader(data_config(image_folder(tmp_path)))
    with pytest.raises(DataError, match=r"train/cat/77\.png: no such file"):
        reader.fetch([Address("train/cat/77.png", 0, 9)])


def test_an_error_of_the_file_system_can_be_retried(tmp_path: Path) -> None:
    (image_folder(tmp_path) / "train" / "cat" / "3.png").mkdir()
    with pytest.raises(StorageError, match=r"train/cat/3\.png: cannot be read"):
        open_reader(data_config(tmp_path)).fetch([Address("train/cat/3.png", 0, 9)])


# --- Parquet ---


@pytest.mark.parametrize(
    ("files", "train"),
    [
        (["train.parquet"], "train"),
        (["train.parquet"], "train.parquet"),
        (["train-0.parquet", "train-1.parquet"], "train"),
        (["train-0.parquet", "train-1.parquet"], "train-*.parquet"),
        (["data/train-0.parquet", "data/train-1.parquet"], "data/train"),
        (["train/0.parquet", "train/1.parquet"], "train"),
        (["a/train/0.parquet", "b/train/0.parquet"], "?/train/*.parquet"),
    ],
)
def test_files_of_a_split_are_found(tmp_path: Path, files: list[str], train: str) -> None:
    for path in files:
        write_parquet(tmp_path / path, ROWS)
    write_parquet(tmp_path / "test.parquet", ROWS)
    write_parquet(tmp_path / "data" / "test-0.parquet", ROWS)
    records = everything(data_config(tmp_path, format="parquet", train=train))
    assert [(r.uri, r.offset) for r in records] == [
        (path, row) for path in files for row in range(5)
    ]
    assert [r.data for r in records] == [data for data, _ in ROWS] * len(files)
    assert [r.label for r in records] == [label for _, label in ROWS] * len(files)


def test_a_split_without_files_names_the_expected_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", ROWS)
    with pytest.raises(DataError, match=r"split 'test'; expected test\.parquet.*data\.test"):
        everything(data_config(tmp_path, format="parquet"), "test")


def test_class_names_come_from_the_metadata_or_are_numbers(tmp_path: Path) -> None:
    config = data_config(tmp_path, format="parquet")
    write_parquet(tmp_path / "train.parquet", ROWS, names=["cat", "dog"])
    assert open_reader(config).classes() == ("cat", "dog")
    write_parquet(tmp_path / "train.parquet", ROWS)
    assert open_reader(config).classes() == ("class_00000", "class_00001")


@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": {"features": {"label": null}}}'])
def test_metadata_without_class_names_is_ignored(tmp_path: Path, metadata: str) -> None:
    path = write_parquet(tmp_path / "train.parquet", ROWS)
    table = pq.read_table(path).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, path)
    reader = open_reader(data_config(tmp_path, format="parquet"))
    assert reader.classes() == ("class_00000", "class_00001")


def test_rows_without_an_image_or_a_label_are_reported(tmp_path: Path) -> None:
    rows = [(png(0), 0), (None, 1), (png(2), None), (b"", 0)]
    write_parquet(tmp_path / "train.parquet", rows)
    records = everything(data_config(tmp_path, format="parquet"))
    assert [bool(record.problem) for record in records] == [False, True, True, True]
    assert records[2].label == -1


@pytest.mark.parametrize(
    "table",
    [
        {"picture": [b"x"], "label": [0]},
        {"image": [b"x"], "label": [0]},
        {"image": [{"path": "a.png"}], "label": [0]},
        {"image": [{"bytes": b"x", "path": "a.png"}], "label": ["cat"]},
    ],
    ids=["no image", "no struct", "no bytes", "a text as label"],
)
def test_other_columns_are_refused(tmp_path: Path, table: dict[str, list[object]]) -> None:
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet: columns .*expected image \(struct"):
        everything(data_config(tmp_path, format="parquet"))


def test_a_truncated_file_is_reported_as_truncated(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", ROWS)
    data = path.read_bytes()
    for kept in (0, 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises(DataError, match=r"train\.parquet: not a complete Parquet file"):
            everything(data_config(tmp_path, format="parquet"))


def test_a_flipped_bit_is_never_another_image(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", ROWS)
    config, data = data_config(tmp_path, format="parquet"), path.read_bytes()
    before, caught = everything(config), 0
    for place in np.linspace(4, len(data) - 9, 60).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 16
        path.write_bytes(bytes(damaged))
        try:
            # What no checksum covers is the footer: names and sizes there do not touch the pixels.
            assert [r.data for r in everything(config)] == [r.data for r in before]
        except DataError:
            caught += 1
    assert caught > 20


def test_a_file_truncated_after_indexing_is_named(tmp_path: Path) -> None:
    config = data_config(tmp_path, format="parquet")
    write_parquet(tmp_path / "train.parquet", ROWS[:3])
    for row in (3, 99):
        with pytest.raises(DataError, match=r"train\.parquet: has fewer rows"):
            open_reader(config).fetch([Address("train.parquet", row, 9)])


# --- digits ---


def test_the_digits_are_split_evenly_and_deterministically() -> None:
    config = data_config(None, format="digits", num_classes=10, side=32)
    train, test = everything(config), everything(config, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert not {r.data for r in train} & {r.data for r in test}
    counts = np.bincount([record.label for record in test])
    assert counts.min() >= 34
    assert counts.max() <= 37
    assert encoded(picture(0)) not in {record.data for record in train}
