"""The shards that a changed dataset makes again: those whose content changed, and no others."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill_core.config.load import load_run
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import ingest
from distill_core.keys import RecoverReads, recover_key, statistics_key
from distill_core.sharding import plan_shards
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png

WIDTH, IPC, RANGE = 2, 2, 1
SETTINGS = ("recover.batch_size=2", "recover.shard_classes=2", "recover.ipc_range=1", "ipc=2")
FIRST = {wnid: {"0": n, "1": 100 + n} for n, wnid in enumerate("bdfhj")}

Files = dict[str, dict[str, int]]  # wnid -> name -> what its pixels are made from
Edit = tuple[str, str, int]  # what is done, to which class, a number to choose by
Content = tuple[tuple[str, tuple[tuple[str, int], ...]], ...]  # of the classes of a block

KINDS = ("add class", "remove class", "add file", "change file", "rename file", "remove file")
EDITS = st.tuples(st.sampled_from(KINDS), st.sampled_from("abcdefghijk"), st.integers(0, 3))
VERSIONS = st.lists(st.lists(EDITS, min_size=1, max_size=4), min_size=1, max_size=3)


def edited(files: Files, edits: list[Edit]) -> Files:
    """Return the dataset after some edits; one that makes no sense there changes nothing."""
    now = {wnid: dict(some) for wnid, some in files.items()}
    for kind, wnid, number in edits:
        some = now.get(wnid, {})
        name = sorted(some)[number % len(some)] if some else ""
        match kind:
            case "add class":
                now.setdefault(wnid, {"0": number})
            case "remove class" if len(now) > 1:
                now.pop(wnid, None)
            case "add file" if some:
                some.setdefault(f"new{number}", number)
            case "change file" if some:
                some[name] = 1000 + number
            case "rename file" if some:
                some.setdefault(f"renamed{number}", some.pop(name))
            case "remove file" if len(some) > 1:
                some.pop(name)
    return now


@contextmanager
def series() -> Iterator[tuple[Path, Store]]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "data"), Store(str(Path(folder, "store")))


@lru_cache(maxsize=4096)
def picture(value: int) -> bytes:
    return png(value)


def index_of(root: Path, store: Store, files: Files, previous: DatasetIndex | None) -> DatasetIndex:
    """Write the dataset, and index it as the version after another."""
    shutil.rmtree(root, ignore_errors=True)
    for wnid, some in files.items():
        for split, names in (("train", some), ("test", {"0": 7})):
            (root / split / wnid).mkdir(parents=True)
            for name, value in names.items():
                (root / split / wnid / f"{name}.png").write_bytes(picture(value))
    known = set() if previous is None else set(previous.class_names)
    ids = len(known | files.keys())
    return ingest(data_config(root, num_classes=ids), store, previous)


def keys(index: DatasetIndex, init: str) -> dict[tuple[tuple[str, ...], int], str]:
    """Return the key of every image shard by its classes and the first index of its range."""
    run = load_run("digits-demo", (*SETTINGS, f"recover.init={init}"))
    shards = plan_shards(
        index.classes,
        ipc=run.ipc,
        ipc_range=run.recover.ipc_range,
        batch_size=run.recover.batch_size,
        composition=run.recover.composition,
        shard_classes=run.recover.shard_classes,
    )
    reads = RecoverReads(teachers=["kept"])
    return {
        (
            tuple(dict.fromkeys(image.wnid for image in shard.images)),
            shard.images[0].ipc_index,
        ): recover_key(run, "distilled", shard, reads=reads, fingerprints=index.fingerprints)
        for shard in shards
    }


def blocks(history: list[Files]) -> set[Content]:
    """Return the blocks of the last version with their files, worked out from the names alone."""
    generations: list[list[str]] = []
    for files in history:
        known = {wnid for names in generations for wnid in names}
        generations.append([wnid for wnid in sorted(files) if wnid not in known])
    found = set()
    for names in generations:
        for start in range(0, len(names), WIDTH):
            there = [wnid for wnid in names[start : start + WIDTH] if wnid in history[-1]]
            if there:
                found.add(tuple((wnid, tuple(sorted(history[-1][wnid].items()))) for wnid in there))
    return found


def names_of(content: Content) -> tuple[str, ...]:
    return tuple(wnid for wnid, _ in content)


@pytest.mark.parametrize("init", ["real", "gaussian"])
@settings(max_examples=30, deadline=None)
@given(versions=VERSIONS)
@example(versions=[[("change file", "f", 0)]])
@example(versions=[[("remove class", "b", 0)], [("add class", "b", 0)]])
@example(versions=[[("add class", "a", 0), ("add class", "k", 0)], [("rename file", "a", 1)]])
def test_the_shards_to_recompute_are_those_whose_content_changed(
    init: str, versions: list[list[Edit]]
) -> None:
    history = [FIRST]
    with series() as (root, store):
        before = index_of(root, store, FIRST, None)
        for edits in versions:
            history.append(edited(history[-1], edits))
            after = index_of(root, store, history[-1], before)
            old, new = keys(before, init), keys(after, init)
            recomputed = {shard for shard, key in new.items() if key not in old.values()}
            was, now = blocks(history[:-1]), blocks(history)
            if init == "gaussian":  # pixels start from noise: only who shares a batch counts
                was, now = ({tuple((w, ()) for w in names_of(b)) for b in s} for s in (was, now))
            expected = {(names_of(b), i) for b in now - was for i in range(0, IPC, RANGE)}
            assert recomputed == expected
            assert new.keys() == {(names_of(b), i) for b in now for i in range(0, IPC, RANGE)}
            before = after


@settings(max_examples=20, deadline=None)
@given(versions=VERSIONS)
def test_class_statistics_are_measured_again_where_images_changed(
    versions: list[list[Edit]],
) -> None:
    run = load_run("digits-demo")
    history = [FIRST]

    def key(index: DatasetIndex, wnids: tuple[str, ...]) -> str:
        return statistics_key(run, wnids, teachers=["kept"], fingerprints=index.fingerprints)

    with series() as (root, store):
        before = index_of(root, store, FIRST, None)
        for edits in versions:
            history.append(edited(history[-1], edits))
            after = index_of(root, store, history[-1], before)
            old = {key(before, names_of(block)) for block in blocks(history[:-1])}
            again = {b for b in blocks(history) if key(after, names_of(b)) not in old}
            assert again == blocks(history) - blocks(history[:-1])
            before = after


@settings(max_examples=20, deadline=None)
@given(edits=st.lists(EDITS, min_size=1, max_size=4))
def test_a_dataset_restored_to_an_earlier_version_needs_no_new_shard(edits: list[Edit]) -> None:
    with series() as (root, store):
        first = index_of(root, store, FIRST, None)
        second = index_of(root, store, edited(FIRST, edits), first)
        third = index_of(root, store, FIRST, second)
        assert set(keys(third, "real").values()) == set(keys(first, "real").values())
        assert third.fingerprints == first.fingerprints
        removed = Counter(entry.removed for entry in third.classes)
        assert removed[True] == len(second.classes) - len(first.classes)
