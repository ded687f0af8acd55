"""Real images for tests, which are no part of the repository; tests skip where they are absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.repository import ROOT
from tests.support.sources import Images


def data_folder(name: str) -> Path:
    """Return a folder of real data; DISTILL_TEST_DATA names another parent folder."""
    path = Path(os.environ.get("DISTILL_TEST_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.is_dir():
        pytest.skip(f"no {path}; set DISTILL_TEST_DATA to run this test")
    return path


def tiny_imagenet_50(*, classes: int = 50, train: int = 500, test: int = 50) -> Images:
    """Return the first images of the first classes of 50 classes of Tiny-ImageNet.

    Args:
        classes: how many, in the order of their wnids.
        train: images of each to train on.
        test: images of each to test on, of the validation split.
    """
    folder = data_folder("tiny-imagenet-50")
    splits = (("train", "train", train), ("test", "valid", test))
    return {
        split: _images(folder / f"{file}.parquet", classes, count) for split, file, count in splits
    }


def _images(path: Path, classes: int, count: int) -> dict[str, dict[str, bytes]]:
    table = pq.read_table(path)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names: list[str] = features["label"]["names"]
    images: dict[str, dict[str, bytes]] = {wnid: {} for wnid in names[:classes]}
    for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True):
        if label < classes and len(images[names[label]]) < count:
            images[names[label]][Path(image["path"]).name] = image["bytes"]
    return images
