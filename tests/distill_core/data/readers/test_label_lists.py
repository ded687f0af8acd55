"""Lists of classes and of labels, and flat splits that need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.data.files.local import Listing
from distill_core.data.folders import LocalFolder
from distill_core.data.ingest import ingest
from distill_core.data.readers.flat import FlatReader
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.label_lists import parse_classes, parse_labels
from distill_core.data.readers.record import Record
from distill_core.errors import ConfigError, DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png
from tests.support.sources import devkit, flat_validation, image_folders, write

IMAGES = {
    "train": {"cat": {"a.png": png(0)}, "dog": {"b.png": png(1)}},
    "test": {"cat": {"v1.png": png(2), "v3.png": png(3)}, "dog": {"v2.png": png(4)}},
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rose\ntulip\n", ("rose", "tulip")),
        ("great white shark\r\ncat\r\n\r\n", ("great white shark", "cat")),
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ("n01440764", "n01443537")),
        ("n01440764\tgoldfish, Carassius auratus\n", ("n01440764",)),
        ("n02119789 1 kit_fox\nn02100735 2 English_setter\n", ("n02119789", "n02100735")),
        ("a 1 x\nb 2 y\n", ("a", "b")),
        ("0 air plane\n1 car\n", ("air plane", "car")),
        ("a\tthe first\nb\tthe second\n", ("a", "b")),
    ],
)
def test_class_lists_in_every_form(text: str, names: tuple[str, ...]) -> None:
    assert parse_classes(text, "list") == names


@pytest.mark.parametrize(
    ("text", "problem"), [("\n", "no class"), ("a\nb\na\n", "class 'a' is listed twice")]
)
def test_a_class_list_without_sense_is_refused(text: str, problem: str) -> None:
    with pytest.raises(DataError, match=rf"list: .*{problem}"):
        parse_classes(text, "list")


@pytest.mark.parametrize(
    "text",
    [
        "ImageId,PredictionString\nv1,n1 85 1 499 272 \nv2,n2 1 2 3 4 n2 5 6 7 8 \n",
        "v1.JPEG\tn1\t0\t32\t44\t62\nv2.JPEG\tn2\t1\t1\t1\t1\n",
        "val/v1.JPEG n1\nval/v2.JPEG n2\n",
        "filename,label\nv1.png,n1\nv2.png,n2\n",
        "v1.JPEG n1 1 2 3 4\nv2.JPEG n2 1 2 3 4\n",
    ],
    ids=["Kaggle", "Tiny-ImageNet", "Caffe", "headings", "spaces"],
)
def test_label_lists_in_every_form(text: str) -> None:
    assert dict(parse_labels(text, "list").by_stem) == {"v1": "n1", "v2": "n2"}


def test_classes_with_spaces_have_boxes_too() -> None:
    text = (
        "v1,kit fox 85 1 499 272 \nv2,kit fox 1 2 3 4 kit fox 5 6 7 8 \nv3,fox 1 2 3 4 cat 5 6 7 8"
    )
    found = dict(parse_labels(text, "list").by_stem)
    assert found == {"v1": "kit fox", "v2": "kit fox", "v3": "fox"}


def test_a_class_of_several_words_is_kept() -> None:
    assert parse_labels("a.png\tgreat white shark\n", "x").by_stem == {"a": "great white shark"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"v1,n1\n{'x' * 200_000},n1\n", "line 2 is .*expected the name of an image"),
        ("v1 n1\nv2\n", "line 2 is 'v2', expected the name of an image and its class"),
        ("v1 n1\nv1.png n2\n", "line 2: the image 'v1.png' has a second class, 'n2'"),
    ],
)
def test_a_label_list_without_sense_is_refused(text: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        parse_labels(text, "list")


def labels(folder: Path, **changes: object) -> dict[str, tuple[int, str]]:
    """Return label and problem of every test image, by name."""
    reader = open_reader(data_config(folder, **changes))
    records: list[Record] = []
    for part in reader.parts("test"):
        records += reader.records(part, reader.classes())
    return {record.name: (record.label, record.problem) for record in records}


def test_numbers_count_from_0_in_the_training_classes(tmp_path: Path, store: Store) -> None:
    config = flat_validation(IMAGES, tmp_path)
    write(tmp_path / "val.txt", b"v1.png 0\nv2.png 1\nv3.png 0\n")
    config |= {"label_list": "val.txt"}
    found = labels(tmp_path, **config)
    assert found == {"v1.png": (0, ""), "v2.png": (1, ""), "v3.png": (0, "")}
    assert ingest(data_config(tmp_path, **config), store).class_sizes("test") == {
        "cat": 2,
        "dog": 1,
    }


def test_classes_whose_names_are_numbers_are_named_by_them(tmp_path: Path) -> None:
    names = [str(number) for number in range(12)]
    train = {name: {f"{name}.png": png(int(name))} for name in names}
    config = flat_validation({"train": train, "test": {"2": {"v.png": png(20)}}}, tmp_path)
    assert labels(tmp_path, **config) == {"v.png": (sorted(names).index("2"), "")}


def test_both_splits_may_be_flat(tmp_path: Path, store: Store) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for number in range(count):
            write(tmp_path / "data" / split / f"{split}_{number}.png", png(number))
    lines = [f"{split}_{n}.png {n % 2}" for split in ("train", "test") for n in range(4)]
    write(tmp_path / "data" / "labels.txt", "\n".join(lines).encode())
    config = data_config(tmp_path / "data", format="flat", label_list="labels.txt", num_classes=0)
    sizes = ingest(config, store).class_sizes("train")
    assert sizes == {"class_00000": 2, "class_00001": 2}


def test_numbers_count_in_a_class_list_where_there_is_one(tmp_path: Path) -> None:
    config = flat_validation(IMAGES, tmp_path)
    write(tmp_path / "val.txt", b"v1.png 1\nv2.png 0\nv3.png 1\n")
    write(tmp_path / "names.txt", b"dog\ncat\n")
    lists = {"label_list": "val.txt", "class_list": str(tmp_path / "names.txt")}
    found = labels(tmp_path, **config | lists)
    assert found == {"v1.png": (0, ""), "v2.png": (1, ""), "v3.png": (0, "")}


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    config = flat_validation(IMAGES, tmp_path)
    write(tmp_path / "val.txt", b"v1.png 0\nv2.png 2\n")
    with pytest.raises(
        DataError, match=r"'v2\.png': its label 2 is not one of the 2 classes, 0 to 1\."
    ):
        labels(tmp_path, **config | {"label_list": "val.txt"})
    write(tmp_path / "val.txt", b"v1.png cat\nv2.png eel\n")
    with pytest.raises(DataError, match=r"eel: a class that the training split does not have"):
        open_reader(data_config(tmp_path, **config | {"label_list": "val.txt"})).classes("test")


def test_an_image_that_is_not_listed_is_a_bad_image(tmp_path: Path) -> None:
    config = flat_validation(IMAGES, tmp_path)
    write(tmp_path / "val" / "v9.png", png(9))
    assert labels(tmp_path, **config)["v9.png"] == (-1, "it is not in data.label_list.")


def test_a_flat_split_needs_a_list(tmp_path: Path) -> None:
    config = flat_validation(IMAGES, tmp_path)
    with pytest.raises(ConfigError, match=r"data\.label_list: missing.*Set data\.label_list=FILE"):
        labels(tmp_path, **config | {"label_list": None})
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file"):
        labels(tmp_path, **config | {"label_list": "nowhere.txt"})


def test_the_numbers_of_the_development_kit_need_its_own_class_list(tmp_path: Path) -> None:
    config = devkit(IMAGES, tmp_path)
    assert labels(tmp_path, **config)["v2.png"] == (1, "")
    with pytest.raises(ConfigError, match=r"Set data\.class_list to the kit's list of wnids"):
        open_reader(data_config(tmp_path, **config | {"class_list": None})).classes("test")
    write(tmp_path / "sorted.txt", b"cat\ndog\n")
    with pytest.raises(ConfigError, match="class_list is in alphabetical order, which is another"):
        open_reader(data_config(tmp_path, **config | {"class_list": "sorted.txt"})).classes("test")


def test_the_numbers_of_other_images_are_refused(tmp_path: Path) -> None:
    config = devkit(IMAGES, tmp_path)
    write(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"1\n2\n")
    with pytest.raises(DataError, match="2 labels for 3 images"):
        labels(tmp_path, **config)


def test_splits_of_two_formats_are_compared_by_class(tmp_path: Path) -> None:
    image_folders(IMAGES, tmp_path)
    (tmp_path / "test" / "eel").mkdir()
    config = data_config(tmp_path, test_format="tars")
    with pytest.raises(DataError, match="no tar file for the split"):
        open_reader(config).classes("test")


def test_a_flat_split_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listings: list[str] = []
    listed = LocalFolder.files

    def counted(self: LocalFolder, path: str) -> Listing:
        listings.append(path)
        return listed(self, path)

    monkeypatch.setattr(LocalFolder, "files", counted)
    reader = FlatReader(data_config(tmp_path, **flat_validation(IMAGES, tmp_path)))
    (part,) = reader.parts("test")
    assert reader.is_current(part)
    assert [record.name for record in reader.records(part, ("cat", "dog"))] == [
        "v1.png",
        "v2.png",
        "v3.png",
    ]
    assert listings == ["val"]
