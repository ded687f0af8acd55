"""WebDataset shards: samples are grouped by key, labels are numbers or names."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Record
from distill_core.errors import DataError
from tests.support.datasets import data_config, encoded, picture, png
from tests.support.sources import tar_bytes, write

Files = list[tuple[str, bytes]]


def shard(folder: Path, files: Files, name: str = "train") -> None:
    write(folder / f"{name}.tar", tar_bytes(files))


def everything(folder: Path, **changes: object) -> list[Record]:
    reader = open_reader(data_config(folder, format="webdataset", **changes))
    classes = reader.classes()
    return [record for part in reader.parts("train") for record in reader.records(part, classes)]


def test_samples_are_read_by_key_whatever_the_order_of_their_members(tmp_path: Path) -> None:
    files = [
        ("a/0.cls", b"1"),
        ("a/0.jpg", encoded(picture(0), "JPEG")),
        ("a/0.json", b"{}"),
        ("a/1.PNG", png(1)),
        ("a/1.cls", b" 0\n"),
        ("a/1.txt", b"a caption"),
        ("b/1.webp", encoded(picture(2), "WEBP")),
        ("b/1.cls", b"1"),
    ]
    shard(tmp_path, files)
    found = [(r.label, r.name, r.data, r.problem) for r in everything(tmp_path)]
    assert found == [
        (1, "0.jpg", files[1][1], ""),
        (0, "1.PNG", files[3][1], ""),
        (1, "1.webp", files[6][1], ""),
    ]


@pytest.mark.parametrize(
    ("train", "found"),
    [
        ("train", ["train-000000.tar", "train-000001.tar"]),
        ("train-{000000..000001}.tar", ["train-000000.tar", "train-000001.tar"]),
        ("train-00000[1-9].tar", ["train-000001.tar"]),
        ("shards", ["shards/0.tar", "shards/1.tar"]),
    ],
)
def test_shards_are_found_by_name_glob_and_braces(
    tmp_path: Path, train: str, found: list[str]
) -> None:
    for name in ("train-000000", "train-000001", "val-000000", "shards/0", "shards/1"):
        shard(tmp_path, [("0.png", png(0)), ("0.cls", b"0")], name)
    records = everything(tmp_path, train=train)
    assert [record.uri for record in records] == found


def test_classes_come_from_a_list_a_count_or_the_labels(tmp_path: Path) -> None:
    shard(tmp_path, [("0.png", png(0)), ("0.cls", b"2"), ("1.png", png(1)), ("1.cls", b"0")])
    write(tmp_path / "names.txt", b"cat\ndog\neel\n")

    def classes(**changes: object) -> tuple[str, ...]:
        return open_reader(data_config(tmp_path, format="webdataset", **changes)).classes()

    assert classes(class_list="names.txt") == ("cat", "dog", "eel")
    assert classes(num_classes=4)[3] == "class_00003"
    assert classes(num_classes=0) == ("class_00000", "class_00001", "class_00002")
    shard(tmp_path, [("0.png", png(0)), ("0.cls", b"dog"), ("1.png", png(1)), ("1.cls", b"cat")])
    assert classes(num_classes=0) == ("cat", "dog")
    assert [r.label for r in everything(tmp_path, num_classes=0)] == [1, 0]


def test_labels_and_images_can_be_chosen_by_member(tmp_path: Path) -> None:
    files = [("0.a.png", png(0)), ("0.b.png", png(1)), ("0.fine.txt", b"1"), ("0.cls", b"0")]
    shard(tmp_path, files)
    with pytest.raises(DataError, match=r"the images a\.png, b\.png\. Set data\.image_column"):
        everything(tmp_path)
    (record,) = everything(tmp_path, image_column="b.png", label_column="fine.txt")
    assert (record.data, record.label) == (png(1), 1)


def test_samples_without_a_label_are_bad_and_those_without_an_image_are_ignored(
    tmp_path: Path,
) -> None:
    files = [("0.png", png(0)), ("1.png", png(1)), ("1.cls", b""), ("2.cls", b"0"), ("README", b"")]
    shard(tmp_path, files)
    reader = open_reader(data_config(tmp_path, format="webdataset"))
    (part,) = reader.parts("train")
    records = list(reader.records(part, reader.classes()))
    problems = ["its sample has no cls.", "its cls is empty."]
    assert [record.problem for record in records] == problems
    assert reader.notices("train") == [
        "train.tar/2.cls is ignored, because its name is not that of an image, and 1 more like it."
    ]


@pytest.mark.parametrize("label", [b"2", b"-1", b"eel", b"99999999999999999999"])
def test_a_label_of_no_class_is_refused_with_its_sample(tmp_path: Path, label: bytes) -> None:
    shard(tmp_path, [("a/7.png", png(0)), ("a/7.cls", label)])
    with pytest.raises(DataError, match=r"train\.tar sample a/7: its label .* is not one of the 2"):
        everything(tmp_path)
