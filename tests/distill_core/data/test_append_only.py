"""Class ids are append-only: what a label in a reused file means never changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.config.data import DataConfig
from distill_core.data.index import DatasetIndex, number_classes
from distill_core.data.index_files import load_index
from distill_core.data.ingest import ingest
from distill_core.data.parts import read as part_module
from distill_core.data.real_images import RealImages
from distill_core.errors import DataError
from distill_core.sharding import ClassEntry
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png, write_parquet

NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True)


def add(folder: Path, wnid: str, *values: int) -> None:
    """Write a class; its last value is the one to test on."""
    for split, some in (("train", values[:-1]), ("test", values[-1:])):
        (folder / split / wnid).mkdir()
        for value in some:
            (folder / split / wnid / f"{value}.png").write_bytes(png(value))


def remove(folder: Path, wnid: str) -> None:
    for split in ("train", "test"):
        shutil.rmtree(folder / split / wnid)


def again(folder: Path, store: Store, before: DatasetIndex, *, ids: int) -> DatasetIndex:
    return ingest(data_config(folder, num_classes=ids), store, before)


@settings(deadline=None)
@given(versions=st.lists(NAMES, min_size=1, max_size=6))
def test_ids_and_classes_stay_together_over_any_sequence_of_versions(
    versions: list[list[str]],
) -> None:
    known: tuple[ClassEntry, ...] = ()
    for names in versions:
        classes = number_classes(names, known)
        assert [entry.id for entry in classes] == list(range(len(classes)))
        assert [(c.id, c.wnid, c.generation) for c in classes[: len(known)]] == [
            (c.id, c.wnid, c.generation) for c in known
        ]
        assert {c.wnid for c in classes if not c.removed} == set(names)
        added = classes[len(known) :]
        assert [c.wnid for c in added] == [n for n in names if n not in {c.wnid for c in known}]
        assert len({c.generation for c in added}) <= 1
        assert not {c.generation for c in added} & {c.generation for c in known}
        known = classes


def test_an_added_class_is_appended_whatever_its_place_in_the_alphabet(
    folder: Path, store: Store
) -> None:
    first = ingest(data_config(folder), store)
    add(folder, "ant", 40, 41, 42)
    second = again(folder, store, first, ids=3)
    assert second.classes == (*first.classes, ClassEntry(2, "ant", generation=1))
    assert second.train["label"].to_pylist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert second.train["wnid"].to_pylist()[-1] == "ant"
    assert {n: second.fingerprints[n] for n in ("cat", "dog")} == first.fingerprints
    assert load_index(store, second.id) == second
    pixels = RealImages(data_config(folder), second, "train").pixels(second.rows_of("train", 2))
    assert pixels.shape == (2, 3, 8, 8)


def test_a_removed_class_leaves_a_hole_and_fills_it_when_it_comes_back(
    folder: Path, store: Store
) -> None:
    first = ingest(data_config(folder), store)
    add(folder, "eel", 40, 41)
    second = again(folder, store, first, ids=3)
    remove(folder, "cat")
    third = again(folder, store, second, ids=3)
    assert [c.removed for c in third.classes] == [True, False, False]
    assert third.class_hash == second.class_hash
    assert set(third.fingerprints) == {"dog", "eel"}
    assert len(third.rows_of("train", 0)) == 0
    assert len(third.rows_of("train", 1)) == 3
    add(folder, "cat", 0, 1, 2, 20)
    fourth = again(folder, store, third, ids=3)
    assert (fourth.id, fourth.fingerprints) == (second.id, second.fingerprints)
    assert load_index(store, third.id) == third


def test_the_labels_of_a_parquet_file_are_read_by_name_not_by_number(
    tmp_path: Path, store: Store
) -> None:
    def dataset(folder: str, names: tuple[str, ...]) -> Path:
        for split in ("train", "test"):
            rows = [(png(ord(name[0])), label) for label, name in enumerate(names)]
            path = tmp_path / folder / f"{split}.parquet"
            write_parquet(path, rows, names=names, paths=[f"{n}.png" for n in names])
        return tmp_path / folder

    def config(path: Path, ids: int) -> DataConfig:
        return data_config(path, format="parquet", num_classes=ids)

    first = ingest(config(dataset("one", ("cat", "dog", "eel")), 3), store)
    second = ingest(config(dataset("two", ("ant", "eel", "dog")), 4), store, first)
    assert [(c.wnid, c.removed) for c in second.classes] == [
        ("cat", True),
        ("dog", False),
        ("eel", False),
        ("ant", False),
    ]
    assert second.train["wnid"].to_pylist() == ["dog", "eel", "ant"]
    assert second.train["label"].to_pylist() == [1, 2, 3]
    for wnid in ("dog", "eel"):
        assert second.fingerprints[wnid] == first.fingerprints[wnid]


def test_the_same_classes_with_another_history_are_another_index(
    folder: Path, store: Store
) -> None:
    first = ingest(data_config(folder), store)
    add(folder, "eel", 40, 41)
    grown = again(folder, store, first, ids=3)
    whole = ingest(data_config(folder, num_classes=3), store)
    assert grown.fingerprints == whole.fingerprints
    assert grown.id != whole.id


def test_a_class_count_is_compared_with_holes_included(folder: Path, store: Store) -> None:
    first = ingest(data_config(folder), store)
    remove(folder, "cat")
    assert again(folder, store, first, ids=2).class_names == ("cat", "dog")
    add(folder, "eel", 40, 41)
    with pytest.raises(DataError, match="2 classes and 1 removed earlier, whose ids stay reserved"):
        again(folder, store, first, ids=2)


def test_a_dataset_without_any_class_left_is_refused(folder: Path, store: Store) -> None:
    first = ingest(data_config(folder), store)
    for wnid in ("cat", "dog"):
        remove(folder, wnid)
    with pytest.raises(DataError, match="found no classes, expected 2"):
        again(folder, store, first, ids=2)


def test_a_class_without_images_is_an_error_not_a_removal(folder: Path, store: Store) -> None:
    first = ingest(data_config(folder), store)
    shutil.rmtree(folder / "train" / "cat")
    (folder / "train" / "cat").mkdir()
    with pytest.raises(DataError, match="no readable image of class 'cat'"):
        again(folder, store, first, ids=2)


def test_only_images_that_are_new_since_the_version_before_are_decoded(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train" / "cat" / "1.png").write_bytes(b"broken")
    config, seen = data_config(folder, max_bad_fraction=0.5), []
    check = part_module.check_image

    def noted(data: bytes, *some: Any, **more: Any) -> None:
        seen.append(data)
        check(data, *some, **more)

    monkeypatch.setattr(part_module, "check_image", noted)
    first = ingest(config, store)
    assert len(seen) == 8
    seen.clear()
    (folder / "train" / "dog" / "11.png").write_bytes(png(50))
    (folder / "train" / "dog" / "12.png").rename(folder / "train" / "dog" / "renamed.png")
    second = ingest(config, store, first)
    assert seen == [png(50)]
    assert ingest(config, Store(f"{store.url}-other")).train.equals(second.train)
