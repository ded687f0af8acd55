"""One changed class of ten on CIFAR-10: its block is made again, the other four are not touched."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tests.support.datasets import png, write_parquet
from tests.support.pipeline import TINY, manifest
from tests.support.series import Series

pytestmark = pytest.mark.slow
PER_CLASS = {"train": 20, "test": 5}
CHANGED = 5  # the class; blocks are of classes 0-1, 2-3, 4-5, 6-7, 8-9
BLOCK = "c00004-00005"
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

    def change(self, label: int) -> None:
        """Replace one training image of a class."""
        rows = self.rows["train"]
        place = next(n for n, (_, found) in enumerate(rows) if found == label)
        rows[place] = (png(1), label)

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


@pytest.fixture
def subset(cifar10_path: Path, tmp_path: Path) -> Subset:
    return Subset(cifar10_path, tmp_path / "data")


def stored(run: Run, name: str) -> dict[str, list[tuple[str, str, bytes]]]:
    """Return path, sha256 and bytes of every file of a manifest, by shard."""
    shard_store, found = ShardStore(run.store, name.split(".")[0]), {}
    for entry in manifest(run, name).entries:
        marker = shard_store.marker(entry.key)
        assert marker is not None
        found[entry.shard] = [
            (f.path, f.sha256, shard_store.load(marker, f.suffix)) for f in marker.files
        ]
    return found


def test_with_real_starts_exactly_the_block_of_a_changed_class_is_made_again(
    subset: Subset, series: Series
) -> None:
    config = subset.run("recover.init=real")
    first = series(config).run
    assert len(manifest(first, "recover").entries) == 5
    names = ("recover", "recover.random_real", "relabel", "relabel.random_real")
    before = {name: stored(first, name) for name in names}
    subset.change(CHANGED)
    subset.write(order=1)
    outcome = series(config)
    assert outcome.changed
    assert series.shards("squeeze") == set()
    assert series.shards("recover") == {f"{BLOCK}_i000-001", f"{BLOCK}_i000-001_random_real"}
    assert {shard.partition("_")[0] for shard in series.shards("relabel")} == {BLOCK}
    for name in names:
        after = stored(outcome.run, name)
        assert after.keys() == before[name].keys()
        for shard, files in after.items():
            assert (files == before[name][shard]) == (not shard.startswith(BLOCK)), (name, shard)
    assert outcome.diff is not None
    assert outcome.diff.classes.changed == (subset.names[CHANGED],)
    assert not series(config).changed


def test_with_gaussian_starts_and_the_teacher_kept_nothing_is_made_again(
    subset: Subset, series: Series
) -> None:
    config = subset.run("posttrain.sets=[distilled]")
    first = series(config).run
    before = {name: stored(first, name) for name in ("recover", "relabel", "posttrain")}
    subset.change(CHANGED)
    subset.write(order=1)
    outcome = series(config)
    assert outcome.changed
    assert series.ran == []
    assert {name: stored(outcome.run, name) for name in before} == before
    assert outcome.diff is not None
    assert [len(shards.recomputed) for shards in outcome.diff.shards] == [0] * 4
