"""A sample of the labels of every format that has them is checked before a run starts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_core.config.load import load_run
from distill_core.data.readers import flat
from distill_core.data.readers.record import SamplesLabels
from distill_core.errors import DataError
from distill_core.storage.store import Store
from flows.runs.checks.dataset import check_labels_of_splits
from flows.runs.checks.request import Request
from tasks.execution import Execution
from tests.support.datasets import png
from tests.support.sources import devkit, flat_validation, image_folders, tar_bytes, write
from tests.support.sources import tiny_imagenet as write_tiny

IMAGES = {
    "train": {"cat": {"a.png": png(0)}, "dog": {"b.png": png(1)}},
    "test": {"cat": {"v1.png": png(2), "v3.png": png(3)}, "dog": {"v2.png": png(4)}},
}


def request(root: Path, **settings: Any) -> Request:
    lines = {"path": root, "num_classes": 2, **settings}
    config = load_run("digits-demo", [f"data.{name}={value}" for name, value in lines.items()])
    return Request(config, Execution(store=f"{root}/store"), Store(f"{root}/store"))


def sampled(run: Request, split: str = "test") -> list[int | None]:
    assert isinstance(run.reader, SamplesLabels)
    return list(run.reader.sample_labels(split))  # type: ignore[arg-type]


def refusal(run: Request) -> str:
    with pytest.raises(DataError) as refused:
        check_labels_of_splits(run)
    return str(refused.value)


def test_the_labels_of_images_with_a_list_are_looked_at_by_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = request(tmp_path, **flat_validation(IMAGES, tmp_path))
    check_labels_of_splits(run)
    assert sampled(run) == [0, 1, 0]
    write(tmp_path / "val" / "unlisted.png", png(5))
    run = request(tmp_path, **flat_validation(IMAGES, tmp_path))
    assert sampled(run) == [None, 0, 1, 0]
    check_labels_of_splits(run)  # single images may have none
    monkeypatch.setattr(flat, "SAMPLED", 2)
    assert sampled(request(tmp_path, **flat_validation(IMAGES, tmp_path))) == [None, 1]


def test_a_list_of_other_images_is_refused(tmp_path: Path) -> None:
    settings = flat_validation(IMAGES, tmp_path)
    write(tmp_path / "LOC_val_solution.csv", b"other1,cat 1 2 3 4\nother2,dog 1 2 3 4\n")
    assert "none of 3 sampled images has a label" in refusal(request(tmp_path, **settings))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("v1 0\nv2 1\nv3 7\n", "label 7 is not one of the 2 classes, 0 to 1"),
        ("v1.png 0\nv2.png 1\nv3.png 2\n", "label 2 is not one of the 2 classes, 0 to 1"),
    ],
)
def test_a_number_that_no_class_has_is_refused_in_folders_and_in_archives(
    labels: str, words: str, packed: bool, tmp_path: Path
) -> None:
    image_folders({"train": IMAGES["train"]}, tmp_path)
    files = [(name, data) for images in IMAGES["test"].values() for name, data in images.items()]
    if packed:
        write(tmp_path / "val.tar", tar_bytes(files))
    else:
        for name, data in files:
            write(tmp_path / "val" / name, data)
    write(tmp_path / "val.txt", labels.encode())
    layout = {"format": "imagefolder", "test": "val", "test_format": "flat"}
    assert words in refusal(request(tmp_path, **layout, label_list="val.txt"))


def test_a_name_that_no_class_of_the_list_has_is_refused(tmp_path: Path) -> None:
    settings = flat_validation(IMAGES, tmp_path)
    write(tmp_path / "classes.txt", b"cat\ncow\n")
    words = refusal(request(tmp_path, **settings, class_list="classes.txt"))
    assert "'v2.png': its label 'dog' is not one of the" in words


def test_the_numbers_of_a_development_kit_are_looked_at_in_its_order(tmp_path: Path) -> None:
    settings = devkit(IMAGES, tmp_path)
    run = request(tmp_path, **settings)
    check_labels_of_splits(run)
    assert sampled(run) == [1, 0, 1]  # cat, dog, cat; the kit has dog first
    write(tmp_path / settings["label_list"], b"1\n2\n3\n")
    assert "label 2 is not one of the 2 classes" in refusal(request(tmp_path, **settings))


def test_the_annotations_of_tiny_imagenet_are_looked_at(tmp_path: Path) -> None:
    run = request(tmp_path, **write_tiny(IMAGES, tmp_path))
    check_labels_of_splits(run)
    assert sampled(run) == [0, 1, 0]
    assert sampled(run, "train") == []
    write(tmp_path / "val" / "val_annotations.txt", b"z.png\tcat\t0\t0\t1\t1\n")
    run = request(tmp_path, **write_tiny({"train": IMAGES["train"], "test": {}}, tmp_path))
    write(tmp_path / "val" / "val_annotations.txt", b"z.png\tcat\t0\t0\t1\t1\n")
    assert "none of 3 sampled images has a label" in refusal(run)


def write_batches(root: Path, labels: list[Any]) -> None:
    """Write the batches of CIFAR-10, each with these labels."""
    pixels = np.zeros((len(labels), 3072), np.uint8)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        batch = {b"data": pixels, b"labels": labels, b"filenames": [b"x.png"] * len(labels)}
        write(root / "cifar-10-batches-py" / name, pickle.dumps(batch, protocol=2))
    names = {b"label_names": [b"cat", b"dog"]}
    write(root / "cifar-10-batches-py" / "batches.meta", pickle.dumps(names, protocol=2))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 5], "label 5 is not one of the 2 classes, 0 to 1"),
        ([-1, -1], "all of 2 sampled labels are -1"),
        ([0, "dog"], "test_batch row 1: its label 'dog' is not one of the 2 classes"),
    ],
)
def test_the_labels_of_batches_of_cifar_are_looked_at(
    labels: list[Any], words: str, tmp_path: Path
) -> None:
    write_batches(tmp_path, [0, 1])
    run = request(tmp_path, format="cifar")
    check_labels_of_splits(run)
    assert sampled(run) == [0, 1]
    good = (tmp_path / "cifar-10-batches-py" / "data_batch_1").read_bytes()
    write_batches(tmp_path, labels)
    write(tmp_path / "cifar-10-batches-py" / "data_batch_1", good)
    assert words in refusal(request(tmp_path, format="cifar"))


def test_a_batch_of_cifar_that_is_missing_is_found(tmp_path: Path) -> None:
    write_batches(tmp_path, [0, 1])
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    assert "data_batch_4: no such file" in refusal(request(tmp_path, format="cifar"))
