"""Labels that are numbers or names; a wrong one never costs memory or ends in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.fields import MAX_CLASSES
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.labels import number_of, numbered_classes, place_of
from distill_core.errors import DataError
from tests.support.datasets import data_config, png
from tests.support.sources import tar_bytes, write

HUGE = ["999999999", "9" * 5000]  # int() refuses the second one
CLASSES = {"cat": 0, "dog": 1, "7": 2}


@pytest.mark.parametrize(
    ("label", "number"), [("0", 0), ("017", 17), ("cat", None), ("-1", None), ("9" * 5000, None)]
)
def test_a_number_is_told_from_a_name(label: str, number: int | None) -> None:
    assert number_of(label) == number


@pytest.mark.parametrize(("label", "place"), [("dog", 1), ("1", 1), ("7", 2)])
def test_a_label_is_a_name_or_else_a_number(label: str, place: int) -> None:
    assert place_of(label, tuple(CLASSES), CLASSES, "here") == place


@pytest.mark.parametrize("label", ["3", "bird", "-1", *HUGE])
def test_a_label_of_no_class_is_refused(label: str) -> None:
    with pytest.raises(DataError, match=r"^here: its label .* is not one of the 3 classes"):
        place_of(label, tuple(CLASSES), CLASSES, "here")


def test_more_numbers_than_a_dataset_may_have_are_refused() -> None:
    assert len(numbered_classes(MAX_CLASSES, "here")) == MAX_CLASSES
    with pytest.raises(DataError, match=r"^here: the largest label is 100000, expected less than"):
        numbered_classes(MAX_CLASSES + 1, "here")


def test_a_wrong_label_reserves_no_memory_in_webdataset(tmp_path: Path) -> None:
    write(tmp_path / "train.tar", tar_bytes([("0.png", png(0)), ("0.cls", HUGE[0].encode())]))
    reader = open_reader(data_config(tmp_path, format="webdataset", num_classes=0))
    with pytest.raises(DataError, match="the largest label is 999999999, expected less than"):
        reader.classes()


@pytest.mark.parametrize("label", HUGE)
def test_a_wrong_label_reserves_no_memory_in_flat_splits(tmp_path: Path, label: str) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "0.png", png(0))
    write(tmp_path / "list.txt", f"0.png {label}\n".encode())
    config = data_config(tmp_path, format="flat", label_list="list.txt", num_classes=0)
    reader = open_reader(config)
    if label == HUGE[0]:
        with pytest.raises(DataError, match="the largest label is 999999999, expected less than"):
            reader.classes()
    else:  # the name of a class, as far as can be told
        assert reader.classes() == (label,)
