from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_core.data.index import CONTENT, IDENTITY, DatasetIndex, build_index
from distill_core.data.index_files import load_index
from distill_core.data.index_table import SCHEMA
from distill_core.data.ingest import ingest
from distill_core.errors import DataError
from distill_core.sharding import ClassEntry, class_list_hash
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png, write_parquet
from tests.support.places import objects

NAMES = ("cat", "dog")


def parquet(path: Path, values: list[int], *, test: tuple[int, ...] = (20, 31)) -> Path:
    """Write images whose odd ones are dogs."""
    for split, some in (("train", values), ("test", test)):
        rows = [(png(value), value % 2) for value in some]
        paths = [f"{value}.png" for value in some]
        write_parquet(path / f"{split}.parquet", rows, names=NAMES, paths=paths)
    return path


def refused(path: Path, store: Store, **changes: Any) -> str:
    """Return the line with which a dataset is refused; only what was read is kept."""
    with pytest.raises(DataError) as error:
        ingest(data_config(path, **changes), store)
    assert {path.split("/")[0] for path in objects(store)} <= {"ingest"}
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_index_has_a_checked_row_per_image(folder: Path, store: Store) -> None:
    index = ingest(data_config(folder), store)
    assert index.classes == (ClassEntry(0, "cat"), ClassEntry(1, "dog"))
    assert index.class_names == NAMES
    assert index.class_hash == class_list_hash(index.classes)
    assert index.train.schema.equals(SCHEMA)
    assert index.train["uri"].to_pylist()[:2] == ["train/cat/0.png", "train/cat/1.png"]
    assert index.train["wnid"].to_pylist() == ["cat"] * 3 + ["dog"] * 3
    assert index.train["size"].to_pylist()[0] == len(png(0))
    assert set(index.train["status"].to_pylist()) == {"ok"}
    assert set(index.fingerprints) == set(NAMES)


def test_a_committed_index_loads_as_it_was(folder: Path, store: Store) -> None:
    index = ingest(data_config(folder), store)
    assert load_index(store, index.id) == index


def test_ingesting_again_writes_nothing(folder: Path, store: Store) -> None:
    first, before = ingest(data_config(folder), store), objects(store)
    assert ingest(data_config(folder), store) == first
    assert objects(store) == before


def test_moving_the_folder_changes_nothing(folder: Path, store: Store) -> None:
    first = ingest(data_config(folder), store)
    moved = folder.rename(folder.with_name("elsewhere"))
    assert ingest(data_config(moved), store) == first


def test_renaming_a_split_keeps_the_fingerprints_but_is_another_index(
    folder: Path, store: Store
) -> None:
    first = ingest(data_config(folder), store)
    (folder / "test").rename(folder / "val")
    second = ingest(data_config(folder, test="val"), store)
    assert second.id != first.id
    assert second.fingerprints == first.fingerprints
    assert second.test_fingerprint == first.test_fingerprint
    assert load_index(store, first.id) == first
    assert load_index(store, second.id) == second


def test_another_image_changes_its_class_and_no_other(folder: Path, store: Store) -> None:
    first = ingest(data_config(folder), store)
    (folder / "train" / "cat" / "3.png").write_bytes(png(3))
    second = ingest(data_config(folder), store)
    assert second.id != first.id
    assert second.fingerprints["cat"] != first.fingerprints["cat"]
    assert second.fingerprints["dog"] == first.fingerprints["dog"]
    assert second.test_fingerprint == first.test_fingerprint
    assert second.class_hash == first.class_hash


@pytest.mark.parametrize("change", ["bytes", "name"])
def test_a_fingerprint_follows_bytes_and_names(folder: Path, store: Store, change: str) -> None:
    first, path = ingest(data_config(folder), store), folder / "test" / "dog" / "30.png"
    if change == "bytes":
        path.write_bytes(png(31))
    else:
        path.rename(path.with_name("thirty.png"))
    second = ingest(data_config(folder), store)
    assert second.test_fingerprint != first.test_fingerprint
    assert second.fingerprints == first.fingerprints


def test_the_order_of_parquet_rows_decides_neither_fingerprint_nor_image_order(
    tmp_path: Path, store: Store
) -> None:
    one = parquet(tmp_path / "one", [0, 1, 2, 3, 4, 5])
    two = parquet(tmp_path / "two", [5, 2, 4, 1, 0, 3])
    first, second = (ingest(data_config(p, format="parquet"), store) for p in (one, two))
    assert first.fingerprints == second.fingerprints
    for label in range(2):
        found = [
            index.train["sha256"].to_numpy()[index.rows_of("train", label)].tolist()
            for index in (first, second)
        ]
        assert found[0] == found[1]
    assert first.id != second.id  # rows have other addresses


def test_a_row_added_in_the_middle_changes_no_other_class(tmp_path: Path, store: Store) -> None:
    one, two = parquet(tmp_path / "one", [0, 1, 2, 3]), parquet(tmp_path / "two", [0, 4, 1, 2, 3])
    first, second = (ingest(data_config(p, format="parquet"), store) for p in (one, two))
    assert first.fingerprints["cat"] != second.fingerprints["cat"]
    assert first.fingerprints["dog"] == second.fingerprints["dog"]


def test_rows_of_a_class_are_its_readable_images(folder: Path, store: Store) -> None:
    (folder / "train" / "cat" / "1.png").write_bytes(b"broken")
    index = ingest(data_config(folder, max_bad_fraction=0.2), store)
    uris = index.train["uri"].to_numpy()
    assert uris[index.rows_of("train", 0)].tolist() == ["train/cat/0.png", "train/cat/2.png"]
    assert uris[index.rows_of("train", 1)].tolist() == [f"train/dog/{n}.png" for n in (10, 11, 12)]
    assert len(index.rows_of("train", 2)) == 0
    assert len(index.readable("train")) == 5
    bad = index.train.to_pylist()[1]
    assert (bad["status"], bad["wnid"]) == ("bad", "cat")
    assert "not an image" in bad["reason"]


def test_an_unreadable_image_does_not_change_a_fingerprint(folder: Path, store: Store) -> None:
    first = ingest(data_config(folder), store)
    (folder / "train" / "cat" / "notes.png").write_text("cats")
    second = ingest(data_config(folder, max_bad_fraction=0.2), store)
    assert second.fingerprints == first.fingerprints
    assert second.id != first.id


@pytest.mark.parametrize(("fraction", "fine"), [(0.0, False), (0.16, False), (0.17, True)])
def test_unreadable_images_are_accepted_up_to_a_fraction(
    folder: Path, store: Store, fraction: float, fine: bool
) -> None:
    path = folder / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:60])  # one of six
    if fine:
        assert len(ingest(data_config(folder, max_bad_fraction=fraction), store).train) == 6
        return
    line = refused(folder, store, max_bad_fraction=fraction)
    assert "1 of 6 files cannot be used" in line
    assert "train/cat/1.png: cannot be decoded" in line


def test_a_class_without_training_images_is_named(folder: Path, store: Store) -> None:
    shutil.rmtree(folder / "train" / "dog")
    (folder / "train" / "dog").mkdir()
    assert "no readable image of class 'dog'" in refused(folder, store)


def test_a_class_with_only_unreadable_images_is_named(folder: Path, store: Store) -> None:
    for path in (folder / "train" / "dog").iterdir():
        path.write_bytes(b"")
    line = refused(folder, store, max_bad_fraction=1.0)
    assert "no readable image of class 'dog'" in line


def test_an_empty_test_split_is_refused_and_a_small_one_is_not(folder: Path, store: Store) -> None:
    (folder / "test" / "dog" / "30.png").unlink()
    assert len(ingest(data_config(folder), store).test) == 1
    (folder / "test" / "cat" / "20.png").unlink()
    with pytest.raises(DataError, match="test split: no readable image"):
        ingest(data_config(folder), store)


@pytest.mark.parametrize("expected", [1, 3])
def test_another_number_of_classes_is_refused(folder: Path, store: Store, expected: int) -> None:
    line = refused(folder, store, num_classes=expected)
    assert f"2 classes, but data.num_classes is {expected}" in line


def test_two_classes_of_one_name_are_refused(tmp_path: Path, store: Store) -> None:
    for split in ("train", "test"):
        path = tmp_path / "data" / f"{split}.parquet"
        write_parquet(path, [(png(0), 0), (png(1), 1)], names=["cat", "cat"])
    assert "two classes are named 'cat'" in refused(tmp_path / "data", store, format="parquet")


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("label", [2, -1, -7, 2**40])
def test_a_label_of_no_class_is_refused_whatever_may_be_damaged(
    tmp_path: Path, store: Store, label: int, fraction: float
) -> None:
    path = parquet(tmp_path / "data", [0, 1])
    write_parquet(path / "train.parquet", [(png(0), 0), (png(1), 1), (png(2), label)])
    line = refused(path, store, format="parquet", max_bad_fraction=fraction)
    assert "train.parquet row 2" in line
    assert "is not one of the 2 classes" in line


def test_a_gap_in_the_labels_is_a_class_without_images(tmp_path: Path, store: Store) -> None:
    path = parquet(tmp_path / "data", [0, 2, 4])
    assert "no readable image of class 'dog'" in refused(path, store, format="parquet")


def test_images_under_two_classes_or_in_both_splits_are_counted_and_kept(
    folder: Path, store: Store
) -> None:
    def counted() -> Any:
        index = ingest(data_config(folder), store)
        return json.loads(store.read(f"datasets/{index.id}/index.json"))["duplicates"]

    assert counted() == {"classes": 0, "splits": 0}
    (folder / "train" / "dog" / "same.png").write_bytes(png(0))
    (folder / "test" / "dog" / "same.png").write_bytes(png(12))
    assert counted() == {"classes": 1, "splits": 1}
    assert len(ingest(data_config(folder), store).readable("train")) == 7


def test_progress_counts_both_splits_up_to_their_sum(folder: Path, store: Store) -> None:
    seen: list[tuple[int, int]] = []
    ingest(data_config(folder), store, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(6, 8), (8, 8)]


def test_an_unknown_dataset_is_named(store: Store) -> None:
    with pytest.raises(DataError, match=r"datasets/tiny-0/index\.json: no such object"):
        load_index(store, "tiny-0")


def table_file(store: Store, index: DatasetIndex) -> Path:
    return next(Path(store.url, "datasets", index.id, "index").glob("train-*.parquet"))


def test_a_damaged_table_is_never_read(folder: Path, store: Store) -> None:
    index = ingest(data_config(folder), store)
    path = table_file(store, index)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"train-.*\.parquet: .*distill resume"):
        load_index(store, index.id)


@pytest.mark.parametrize("text", ["", "[]", '{"classes": [{"label": 0}]}', "\xff"])
def test_a_damaged_description_is_reported_as_damaged(
    folder: Path, store: Store, text: str
) -> None:
    index = ingest(data_config(folder), store)
    store.put(f"datasets/{index.id}/index.json", text.encode("latin1"))
    with pytest.raises(DataError, match=r"index\.json: \d+ bytes are not the description"):
        load_index(store, index.id)


def test_an_interrupted_commit_is_finished_by_the_next(folder: Path, store: Store) -> None:
    index = ingest(data_config(folder), store)
    store.delete(f"datasets/{index.id}/index.json")
    table_file(store, index).unlink()
    assert ingest(data_config(folder), store) == index
    assert load_index(store, index.id) == index


def test_a_damaged_table_is_written_again_when_the_dataset_is_ingested(
    folder: Path, store: Store
) -> None:
    index = ingest(data_config(folder), store)
    path = table_file(store, index)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert ingest(data_config(folder), store) == index
    assert path.read_bytes() == whole
    assert load_index(store, index.id) == index


def test_the_digits_have_an_index(store: Store) -> None:
    config = data_config(None, format="digits", num_classes=10, side=32)
    index = load_index(store, ingest(config, store).id)
    assert len(index.classes) == 10
    assert np.array_equal(np.unique(index.test["label"].to_numpy()), np.arange(10))


def test_the_id_and_the_fingerprints_are_hashes_of_the_rows_as_json() -> None:
    """They are in keys, so they may not change."""
    odd = ['a/"\\\u00e4.png', "\x1b\n\t\x7f/", "\U0001f600\ufffe", "", "plain.JPEG", "\u2028"]
    rows = [
        {
            **{"label": n % 2, "wnid": NAMES[n % 2], "name": name, "uri": f"train/{name}"},
            **{"offset": 2**40 + n, "size": n, "sha256": f"{n:064x}", "reason": name},
            **{"status": "bad" if n == 3 else "ok", "version": "v"},
        }
        for n, name in enumerate(odd)
    ]
    rows.sort(key=lambda row: (row["label"], row["name"]))
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    classes = tuple(ClassEntry(n, wnid) for n, wnid in enumerate(NAMES))
    index = build_index("some", classes, table, table.slice(0, 0))

    def digest(columns: tuple[str, ...], some: list[dict[str, Any]]) -> str:
        lines = [json.dumps([row[name] for name in columns]) for row in some]
        return sha256("".join(lines).encode())

    readable = [row for row in rows if row["status"] == "ok"]
    for label, wnid in enumerate(NAMES):
        of_class = [row for row in readable if row["label"] == label]
        assert index.fingerprints[wnid] == digest(CONTENT, of_class)
    hashes = [[list(asdict(c).values()) for c in classes], digest(IDENTITY, rows), sha256(b"")]
    text = json.dumps(hashes, separators=(",", ":"))
    assert index.id == f"some-{sha256(text.encode())[:12]}"
