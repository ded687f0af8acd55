"""Classes without images or with bad ones are named; those of the test split stop no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.data.checks import untested_classes
from distill_core.data.ingest import ingest
from distill_core.data.parts.counts import SplitCounts
from distill_core.data.parts.summary import PartSummary
from distill_core.errors import DataError
from distill_core.sharding import ClassEntry
from distill_core.storage.store import Store
from tests.support.datasets import data_config


@pytest.mark.parametrize("damage", ["removed", "emptied", "unreadable"])
def test_classes_without_test_images_are_noticed(folder: Path, store: Store, damage: str) -> None:
    image = folder / "test" / "dog" / "30.png"
    image.write_bytes(b"") if damage == "unreadable" else image.unlink()
    if damage == "removed":
        image.parent.rmdir()
    notices: list[str] = []
    ingest(data_config(folder, max_bad_fraction=0.5), store, notice=notices.append)
    assert [text for text in notices if "'dog'" in text] == [
        "test split: no readable image of 1 of 2 classes: 'dog'. "
        "Accuracies are measured on the other classes only."
    ]


def test_messages_show_the_readable_names_of_classes(folder: Path, store: Store) -> None:
    (folder / "words.txt").write_text("cat\ttabby, tabby cat\ndog\thound\n")
    for file in (folder / "train" / "cat").iterdir():
        file.write_bytes(b"text")
    with pytest.raises(DataError, match=r"no readable image of class 'tabby \(cat\)'"):
        ingest(data_config(folder, max_bad_fraction=0.9), store)
    with pytest.raises(DataError, match=r"files of class 'tabby \(cat\)' cannot be used"):
        ingest(data_config(folder, max_bad_fraction=0.9, max_bad_per_class=0), store)


def test_a_complete_test_split_is_not_noticed(folder: Path, store: Store) -> None:
    notices: list[str] = []
    ingest(data_config(folder), store, notice=notices.append)
    assert notices == []


def test_a_notice_names_some_of_many_classes() -> None:
    classes = [ClassEntry(n, f"c{n}") for n in range(9)]
    counts = SplitCounts({entry.wnid: entry.id for entry in classes} | {"": -1})
    counts.add(PartSummary({"c0": (1, 0), "c1": (1, 1), "": (1, 1)}, ()))
    text = untested_classes(data_config(None, format="digits"), counts, classes)
    assert "of 8 of 9 classes: 'c1', 'c2', 'c3', 'c4', 'c5' and 3 more" in text
