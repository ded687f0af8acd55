"""Random histories of a dataset: what is taken over from before never changes an index."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill_core.config.data import DataConfig
from distill_core.data import index_table
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import check_index
from distill_core.data.index_table import SCHEMA, IndexTable
from distill_core.data.ingest import ingest
from distill_core.data.readers import parts
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png
from tests.support.sources import write

CHANGES = ("replace", "rewrite", "add", "remove", "rename", "damage", "new class", "no class", "gc")
STEPS = 4


def change(root: Path, store: Store, rng: np.random.Generator) -> None:
    """Change the dataset at random, or delete all shards as a collection may."""
    files = sorted(root.glob("train/*/*.png"))
    path, kind = files[rng.integers(len(files))], CHANGES[rng.integers(len(CHANGES))]
    image = png(int(rng.integers(30)))
    if kind == "replace":
        path.write_bytes(image)
    elif kind == "rewrite":
        path.write_bytes(path.read_bytes())
    elif kind == "add":
        path.with_name(f"a{rng.integers(99)}.png").write_bytes(image)
    elif kind == "remove":
        path.unlink()
    elif kind == "rename":
        path.rename(path.with_name(f"r{rng.integers(99)}.png"))
    elif kind == "damage":
        path.write_bytes(b"no image")
    elif kind == "new class":
        write(root / "train" / f"n{rng.integers(3)}" / "1.png", image)
    elif kind == "no class" and len(list((root / "train").iterdir())) > 2:
        shutil.rmtree(path.parent)
        shutil.rmtree(root / "test" / path.parent.name, ignore_errors=True)
    for file in store.files("ingest") if kind == "gc" else ():
        store.delete(file.path)


def outcome(config: DataConfig, store: Store, before: DatasetIndex | None) -> DatasetIndex | str:
    """Return the index, or the error that refuses the dataset."""
    try:
        return ingest(config, store, before)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("rule", [None, "per_class:1", "fraction:0.3"])
@pytest.mark.parametrize("seed", [0, 1])
def test_any_history_gives_the_index_of_a_first_ingestion_with_the_same_class_ids(
    seed: int, rule: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_RECORDS", 3)
    monkeypatch.setattr(index_table, "PARTITION_ROWS", 5)
    rng, root = np.random.default_rng(seed), tmp_path / "data"
    for label in range(4):
        for n in range(4):
            write(root / "train" / f"c{label}" / f"{n}.png", png(int(rng.integers(30))))
        write(root / "test" / f"c{label}" / "0.png", png(100 + label))
    config = data_config(root, num_classes=0, max_bad_fraction=0.6, split=rule)
    store, before = Store(str(tmp_path / "store")), None
    for step in range(STEPS):
        found = outcome(config, store, before)
        bare = None
        if before is not None:  # its classes alone, so that every image is read
            none = IndexTable.of(SCHEMA.empty_table(), len(before.classes))
            bare = replace(before, tables={"train": none, "test": none})
        assert found == outcome(config, Store(str(tmp_path / f"other-{step}")), bare)
        if isinstance(found, DatasetIndex):
            check_index(store, found.id)
            before = found
        for _ in range(2):
            change(root, store, rng)
