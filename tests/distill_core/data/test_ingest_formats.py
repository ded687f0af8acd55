"""Ingestion in shards in every format: what is taken over, counted and divided."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from distill_core.config.data import DataConfig
from distill_core.data import index_table
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import load_index
from distill_core.data.ingest import IngestPlan, ingest
from distill_core.data.readers import parts
from distill_core.data.splits import rules
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support import sources
from tests.support.datasets import data_config, png
from tests.support.noted_reads import note_reads

IMAGES: sources.Images = {
    "train": {wnid: {f"{n}.png": png(30 * k + n) for n in range(4)} for k, wnid in enumerate("ab")},
    "test": {
        wnid: {f"val_{wnid}{n}.png": png(200 + 10 * k + n) for n in range(2)}
        for k, wnid in enumerate("ab")
    },
}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the files with images whose bytes are read."""
    return note_reads(monkeypatch, ".png")


def config_of(layout: str, root: Path) -> DataConfig:
    """Write the images in a layout, and return its config."""
    return data_config(root, **getattr(sources, layout)(IMAGES, root))


@pytest.mark.parametrize("layout", ["image_folders", "flat_validation", "tiny_imagenet"])
def test_of_images_with_files_of_their_own_only_changed_ones_are_read(
    layout: str, tmp_path: Path, store: Store, reads: list[str]
) -> None:
    config = config_of(layout, tmp_path)
    first = ingest(config, store)
    assert len(reads) == len(set(reads)) == 12
    for split in ("train", "test"):
        changed = first.table(split)["uri"][0].as_py()
        (tmp_path / changed).write_bytes(png(99))
        reads.clear()
        second = ingest(config, store, first)
        assert reads == [changed]
        assert second == ingest(config, Store(f"{store.url}-{split}"))
        first = second


def test_images_of_another_layout_are_named_by_that_layout(tmp_path: Path, store: Store) -> None:
    """Images lie in `images` folders, whose name only one of the two formats leaves out."""
    tiny = config_of("tiny_imagenet", tmp_path)
    as_folders = tiny.model_copy(update={"format": "imagefolder", "test": "train"})
    before = ingest(as_folders, store)
    assert ingest(tiny, store, before).id == ingest(tiny, Store(f"{store.url}-other")).id


def test_a_corrected_list_gives_images_their_new_classes(tmp_path: Path, store: Store) -> None:
    config = config_of("tiny_imagenet", tmp_path)
    first = ingest(config, store)
    annotations = tmp_path / config.test / "val_annotations.txt"
    lines = annotations.read_text().splitlines()
    lines[0] = lines[0].replace("\ta\t", "\tb\t")
    annotations.write_text("\n".join(lines))
    second = ingest(config, store, first)
    assert first.class_sizes("test") == {"a": 2, "b": 2}
    assert second.class_sizes("test") == {"a": 1, "b": 3}


def keys_of(config: DataConfig) -> dict[tuple[str, ...], str]:
    """Return the keys of the parts of a dataset, by their files."""
    return {each.part.files: each.key for each in IngestPlan(config).parts}


def test_another_class_changes_no_key_of_an_archive(tmp_path: Path) -> None:
    config = config_of("synset_tars", tmp_path)
    before = keys_of(config)
    for split in ("train", "test"):
        source = next((tmp_path / split).glob("a.tar"))
        shutil.copy(source, source.with_name("c.tar"))
    after = keys_of(config.model_copy(update={"num_classes": 3}))
    assert len(after) == len(before) + 2
    assert before.items() <= after.items()


def test_another_column_changes_the_keys(tmp_path: Path) -> None:
    config = config_of("webdataset", tmp_path)
    changed = config.model_copy(update={"label_column": "cls"})
    assert set(keys_of(config).values()).isdisjoint(keys_of(changed).values())


def test_another_order_of_classes_changes_the_keys_of_numbered_labels(tmp_path: Path) -> None:
    """Also where only the test split has numbers, and the classes are those of folders."""
    shards, as_folders = (config_of(name, tmp_path) for name in ("webdataset", "image_folders"))
    mixed = {"format": "imagefolder", "test_format": "webdataset"}
    config = shards.model_copy(update=mixed)
    before = keys_of(config)
    (tmp_path / "classes.txt").write_text("b\na")
    after = keys_of(config)
    changed = {files for files, key in before.items() if after[files] != key}
    assert changed == {files for files in before if files[0].endswith(".tar")}
    folders_alone = keys_of(as_folders)
    assert {k: v for k, v in folders_alone.items() if k[0].startswith("train")}.items() <= (
        before.items()
    )


def test_ignored_members_of_all_archives_are_counted_once(tmp_path: Path, store: Store) -> None:
    config = config_of("synset_tars", tmp_path)
    for name in ("a", "b"):
        files = [("readme.txt", b"text"), ("0.png", png(1)), ("notes.txt", b"text")]
        (tmp_path / "train" / f"{name}.tar").write_bytes(sources.tar_bytes(files))
    for _ in range(2):  # also where every shard exists
        heard: list[str] = []
        ingest(config, store, notice=heard.append)
        (text,) = heard
        assert text.startswith("train split: train/a.tar/readme.txt is ignored")
        assert text.endswith("and 3 more like it.")


def divided(root: Path, store: Store, rule: str, known: DatasetIndex | None = None) -> DatasetIndex:
    config = data_config(root, train="all", split=rule, num_classes=0)
    return load_index(store, ingest(config, store, known).id)


def write_classes(root: Path, counts: dict[str, int]) -> None:
    for wnid, count in counts.items():
        shutil.rmtree(root / "all" / wnid, ignore_errors=True)
        (root / "all" / wnid).mkdir(parents=True)
        for n in range(count):
            (root / "all" / wnid / f"{n}.png").write_bytes(png(20 * ord(wnid) + n))


@pytest.mark.parametrize("rule", ["fraction:0.4", "per_class:2", "imagenet21k_p"])
def test_a_rule_gives_the_same_index_in_parts_and_partitions_of_any_size(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the last rule two classes are too small; one of them comes back later."""
    monkeypatch.setattr(rules, "LEAST", 4)
    monkeypatch.setattr(rules, "VALIDATION", 2)
    whole, cut = Store(str(tmp_path / "whole")), Store(str(tmp_path / "cut"))
    known: dict[str, DatasetIndex | None] = {"whole": None, "cut": None}
    for counts in ({"a": 4, "b": 7, "c": 3, "d": 5, "e": 9}, {"a": 6, "d": 2, "0": 8}):
        write_classes(tmp_path, counts)
        known["whole"] = divided(tmp_path, whole, rule, known["whole"])
        with monkeypatch.context() as small:
            small.setattr(parts, "PART_RECORDS", 4)
            small.setattr(index_table, "PARTITION_ROWS", 6)
            known["cut"] = divided(tmp_path, cut, rule, known["cut"])
        assert known["cut"] == known["whole"]
        assert len(known["cut"].tables["train"].bounds) > len(known["whole"].tables["train"].bounds)
    classes = [(entry.wnid, entry.removed) for entry in known["cut"].classes]
    if rule == "imagenet21k_p":
        expected = [("b", False), ("d", True), ("e", False), ("0", False), ("a", False)]
        assert classes == expected


def test_a_rule_that_leaves_no_class_is_refused_by_its_name(tmp_path: Path, store: Store) -> None:
    write_classes(tmp_path, {"a": 6, "b": 6})
    with pytest.raises(DataError, match=r"data\.split=imagenet21k_p leaves out all 2 classes"):
        divided(tmp_path, store, "imagenet21k_p")


def test_of_a_divided_dataset_unchanged_images_of_both_splits_are_taken_over(
    tmp_path: Path, store: Store, reads: list[str]
) -> None:
    write_classes(tmp_path, {"a": 6, "b": 6})
    first = divided(tmp_path, store, "per_class:2")
    (tmp_path / "all" / "a" / "3.png").write_bytes(png(3))
    reads.clear()
    divided(tmp_path, store, "per_class:2", first)
    assert reads == ["all/a/3.png"]
