"""The labels of archives are looked at before a run starts, as those of Parquet files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.data.readers import webdataset
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import SamplesLabels
from distill_core.errors import DataError
from distill_core.storage.store import Store
from flows.runs.checks.dataset import check_labels_of_splits
from flows.runs.checks.request import Request
from tasks.execution import Execution
from tests.support.datasets import image_folder, png
from tests.support.sources import tar_bytes, write


def write_shards(root: Path, split: str, shards: Sequence[Sequence[str | None]]) -> None:
    """Write a shard of samples for each list of labels; None: a sample without a label."""
    for number, labels in enumerate(shards):
        files = []
        for n, label in enumerate(labels):
            files += [(f"{n:04d}.png", png(n))]
            files += [] if label is None else [(f"{n:04d}.cls", label.encode())]
        write(root / f"{split}-{number:06d}.tar", tar_bytes(files))


def request(root: Path, **changes: str) -> Request:
    """Return a run over shards of two classes."""
    settings = {"format": "webdataset", "path": str(root), "num_classes": "2"} | changes
    config = load_run("digits-demo", [f"data.{name}={value}" for name, value in settings.items()])
    return Request(config, Execution(store=str(root / "store")), Store(str(root / "store")))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["0", "7"], "label 7 is not one of the 2 classes, 0 to 1"),
        (["-1", "-1"], "all of 2 sampled labels are -1"),
        (["0", "cow"], "sample 0001: its label 'cow' is not one of the 2 classes"),
        ([None, None], "none of 2 sampled images has a label"),
    ],
)
def test_labels_of_no_class_are_refused(
    labels: list[str | None], words: str, tmp_path: Path
) -> None:
    write_shards(tmp_path, "train", [["0", "1"]])
    write_shards(tmp_path, "test", [labels])
    with pytest.raises(DataError) as refused:
        check_labels_of_splits(request(tmp_path))
    assert words in str(refused.value)


def test_single_samples_without_a_label_and_names_of_classes_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    write_shards(tmp_path, "train", [["cat", "1", None]])
    write_shards(tmp_path, "test", [["dog", "0"]])
    run = request(tmp_path, class_list="classes.txt")
    check_labels_of_splits(run)
    assert isinstance(run.reader, SamplesLabels)
    assert list(run.reader.sample_labels("train")) == [0, 1, None]


def test_the_first_samples_of_a_few_shards_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "SAMPLES", 2)
    write_shards(tmp_path, "train", [[f"{9 * shard + n}" for n in range(3)] for shard in range(9)])
    reader = open_reader(request(tmp_path, num_classes="90").config.data)
    assert isinstance(reader, SamplesLabels)
    assert list(reader.sample_labels("train")) == [0, 1, 27, 28, 54, 55]


def test_the_labels_of_a_test_split_of_another_format_are_looked_at(tmp_path: Path) -> None:
    image_folder(tmp_path)
    write_shards(tmp_path, "shards", [["0", "2"]])
    run = request(
        tmp_path,
        format="imagefolder",
        test_format="webdataset",
        test="shards",
        class_list="classes.txt",
    )
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="label 2 is not one of the 2 classes"):
        check_labels_of_splits(run)
