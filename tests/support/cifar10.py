"""A few real images of CIFAR-10, which a test can change."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from tests.support.datasets import png, write_parquet
from tests.support.pipeline import TINY

PER_CLASS = {"train": 20, "test": 5}
FIVE_SHARDS = ("recover.batch_size=2", "recover.shard_classes=2", "recover.ipc_range=2")
Rows = list[tuple[bytes, int]]


class Subset:
    """A few images per class of CIFAR-10, that can be changed."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = folder
        schema = pq.read_schema(source / "train.parquet").metadata
        features = json.loads(schema[b"huggingface"])["info"]["features"]
        self.names: Sequence[str] = features["label"]["names"]
        self.rows = {split: _some(source / f"{split}.parquet", n) for split, n in PER_CLASS.items()}
        self.paths = {split: [f"{n}.jpg" for n in range(len(r))] for split, r in self.rows.items()}
        self.write()

    def write(self, *, order: int = 0) -> None:
        """Write both splits, their rows in an order that depends on a seed."""
        for split, rows in self.rows.items():
            places = np.random.default_rng(order).permutation(len(rows))
            shuffled = [rows[place] for place in places]
            paths = [self.paths[split][place] for place in places]
            path = self.folder / f"{split}.parquet"
            write_parquet(path, shuffled, names=self.names, paths=paths, row_group_size=50)

    def change(self, label: int, *, images: int | None = None) -> None:
        """Replace the first training images of a class; None: all of them."""
        rows = self.rows["train"]
        places = [n for n, (_, found) in enumerate(rows) if found == label]
        for number, place in enumerate(places[:images]):
            rows[place] = (png(number + 1), label)

    def run(self, *overrides: str) -> RunConfig:
        """Return a tiny run over the subset, of five shards of two classes each."""
        data = (f"data.path={self.folder}", "posttrain.epochs=1", "posttrain.batch_size=10")
        return load_run("cda-cifar10-cpu", (*TINY, *FIVE_SHARDS, *data, *overrides))


def _some(path: Path, per_class: int) -> Rows:
    """Return the first images of every class."""
    table, seen, rows = pq.read_table(path), Counter[int](), []
    for image, label in zip(table["image"], table["label"].to_pylist(), strict=True):
        if seen[label] < per_class:
            seen[label] += 1
            rows.append((image["bytes"].as_py(), label))
    return rows
