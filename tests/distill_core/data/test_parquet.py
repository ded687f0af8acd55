"""Parquet files of every encoding are read alike by ingestion and by random access."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_core.data.ingest import ingest
from distill_core.data.readers import parquet, parquet_rows, row_groups
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.row_groups import HELD_GROUPS, HeldGroups, part_rows
from distill_core.data.real_images import RealImages
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png, write_parquet

NAMES = ("cat", "dog")
IMAGES = [png(n) for n in range(6)]

BYTES = {
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.binary()),
}
PATHS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}
LABELS = {
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "int8": pa.int8(),
    "dictionary": pa.dictionary(pa.int8(), pa.int64()),
}


def column(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Return an array of a type, which may be dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    return pa.array(values, kind)


def write(
    path: Path,
    images: Sequence[object],
    *,
    image: pa.DataType = BYTES["binary"],
    label: pa.DataType = LABELS["int64"],
    paths: pa.Array | None = None,
) -> None:
    """Write images, by turns cats and dogs, in row groups of three."""
    path.parent.mkdir(exist_ok=True)
    tables = []
    for start in range(0, len(images), 3):
        rows = range(start, start + 3)
        part = {"bytes": column([images[n] for n in rows], image)}
        if paths is not None:
            part["path"] = column([paths[n].as_py() for n in rows], paths.type)
        struct = pa.StructArray.from_arrays(list(part.values()), list(part))
        labels = column([n % 2 for n in rows], label)
        tables.append(pa.table({"image": struct, "label": labels}))
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)


def pixels_of(config_path: Path, store: Store) -> tuple[list[str], list[int], np.ndarray]:
    """Return names, labels and pixels of the training split, by ingestion and random access."""
    config = data_config(config_path, format="parquet")
    index = ingest(config, store)
    real = RealImages(config, index, "train")
    return index.train["name"].to_pylist(), real.labels.tolist(), real.resident()


@pytest.mark.parametrize(
    ("image", "path", "label"),
    [
        *((image, "string", "int64") for image in BYTES),
        *(("binary", path, "int64") for path in PATHS),
        *(("binary", "string", label) for label in LABELS),
        ("binary_view", "string_view", "dictionary"),
        ("dictionary", "dictionary", "dictionary"),
    ],
)
def test_every_encoding_of_the_columns_is_read_alike(
    tmp_path: Path, store: Store, image: str, path: str, label: str
) -> None:
    names, rows = [f"{n}.png" for n in range(6)], [(data, n % 2) for n, data in enumerate(IMAGES)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "plain" / f"{split}.parquet", rows, paths=names)
        write(
            tmp_path / "odd" / f"{split}.parquet",
            IMAGES,
            image=BYTES[image],
            label=LABELS[label],
            paths=column(names, PATHS[path]),
        )
    plain, odd = (pixels_of(tmp_path / name, store) for name in ("plain", "odd"))
    assert odd[:2] == plain[:2]
    assert np.array_equal(odd[2], plain[2])


def test_an_image_needs_no_path(tmp_path: Path, store: Store) -> None:
    for split in ("train", "test"):
        write(tmp_path / "data" / f"{split}.parquet", IMAGES)
    names, labels, pixels = pixels_of(tmp_path / "data", store)
    assert names == [""] * 6
    assert labels == [0, 0, 0, 1, 1, 1]
    assert len(pixels) == 6


def test_a_path_that_is_not_utf8_is_escaped(tmp_path: Path, store: Store) -> None:
    raw = pa.array([f"{n}".encode() + b"\xff.png" for n in range(6)])
    for split in ("train", "test"):
        path = tmp_path / "data" / f"{split}.parquet"
        write_parquet(path, [(data, n % 2) for n, data in enumerate(IMAGES)])
        table = pq.read_table(path)
        images = [table["image"].combine_chunks().field("bytes")]
        text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
        struct = pa.StructArray.from_arrays([*images, text], ["bytes", "path"])
        pq.write_table(pa.table({"image": struct, "label": table["label"]}), path)
    names, _, _ = pixels_of(tmp_path / "data", store)
    assert sorted(names) == [f"{n}\\xff.png" for n in range(6)]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.list_(pa.uint8()), pa.int64()], ids=["text", "list", "number"]
)
def test_an_image_of_another_type_is_refused_at_once(tmp_path: Path, kind: pa.DataType) -> None:
    write(tmp_path / "data" / "train.parquet", [None] * 3, image=kind)
    with pytest.raises(DataError, match=r"train\.parquet: columns image .*expected image \(struct"):
        open_reader(data_config(tmp_path / "data", format="parquet")).classes()


# --- class names ---


def split_files(folder: Path, test_names: list[str] | None, labels: list[int]) -> Path:
    """Write a training split of cats and dogs and a test split with a label list of its own."""
    write_parquet(folder / "train.parquet", [(png(0), 0), (png(1), 1)], names=NAMES)
    rows = [(png(10 + n), label) for n, label in enumerate(labels)]
    write_parquet(folder / "test.parquet", rows, names=test_names)
    return folder


def test_a_test_split_with_its_classes_in_another_order_is_read_by_name(
    tmp_path: Path, store: Store
) -> None:
    folder = split_files(tmp_path / "data", ["dog", "cat"], [0, 1, 1])
    index = ingest(data_config(folder, format="parquet"), store)
    by_content = dict(
        zip(index.test["offset"].to_pylist(), index.test["wnid"].to_pylist(), strict=True)
    )
    assert by_content == {0: "dog", 1: "cat", 2: "cat"}


def test_so_is_a_further_file_of_the_training_split(tmp_path: Path, store: Store) -> None:
    folder = split_files(tmp_path / "data", list(NAMES), [0, 1])
    (folder / "train.parquet").rename(folder / "train-0.parquet")
    write_parquet(folder / "train-1.parquet", [(png(2), 0)], names=["dog"])
    index = ingest(data_config(folder, format="parquet"), store)
    assert index.train["wnid"].to_pylist() == ["cat", "dog", "dog"]


def test_a_test_split_without_names_is_read_by_number(tmp_path: Path, store: Store) -> None:
    folder = split_files(tmp_path / "data", None, [1, 0])
    index = ingest(data_config(folder, format="parquet"), store)
    assert dict(
        zip(index.test["offset"].to_pylist(), index.test["wnid"].to_pylist(), strict=True)
    ) == {
        0: "dog",
        1: "cat",
    }


def test_a_class_that_the_training_split_lacks_is_refused(tmp_path: Path, store: Store) -> None:
    folder = split_files(tmp_path / "data", ["cat", "dog", "eel"], [0, 1])
    with pytest.raises(DataError, match=r"test\.parquet: .*class 'eel' .*training split"):
        ingest(data_config(folder, format="parquet"), store)


def test_a_label_without_a_name_in_its_file_is_refused(tmp_path: Path, store: Store) -> None:
    folder = split_files(tmp_path / "data", ["dog"], [0, 1])
    with pytest.raises(
        DataError, match=r"test\.parquet row 1: its label 1 has no name in the meta"
    ):
        ingest(data_config(folder, format="parquet", max_bad_fraction=1), store)


# --- parts ---


def parts(folder: Path, *names: str) -> Path:
    for name in names:
        write_parquet(folder / f"{name}.parquet", [(png(0), 0), (png(1), 1)], names=NAMES)
    return folder


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["train-00000-of-00002"], "train-00001-of-00002.parquet is missing, only 1 of 2"),
        (["train-00001-of-00002"], "train-00000-of-00002.parquet is missing, only 1 of 2"),
        (["train-00000-of-00004", "train-00002-of-00004"], "train-00001-of-00004.parquet .*2 of 4"),
        (["train-00000-of-99999999999999"], "train-0*1-of-99999999999999.parquet .*only 1 of"),
        (["train/part-0-of-2"], "train/part-1-of-2.parquet is missing"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "1 and 2 parts"),
    ],
)
def test_an_incomplete_set_of_parts_is_refused(
    tmp_path: Path, names: list[str], missing: str
) -> None:
    config = data_config(parts(tmp_path / "data", *names), format="parquet")
    with pytest.raises(DataError, match=missing) as error:
        open_reader(config).classes()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["train-00000-of-00002", "train-00001-of-00002"], "train"),
        (["train-1-of-2", "train-2-of-2"], "train"),
        (["train-0", "train-7"], "train"),
        (["train-00001-of-00002"], "train-00001-of-00002"),
        (["train-00001-of-00004", "train-00002-of-00004"], "train-0000[12]-of-00004.parquet"),
    ],
)
def test_a_whole_set_and_parts_by_number_are_read(
    tmp_path: Path, names: list[str], pattern: str
) -> None:
    config = data_config(parts(tmp_path / "data", *names), format="parquet", train=pattern)
    assert sum(part.count for part in open_reader(config).parts("train")) == 2 * len(names)


def test_a_test_split_must_be_whole_as_well(tmp_path: Path, store: Store) -> None:
    folder = parts(tmp_path / "data", "train", "test-00000-of-00002")
    with pytest.raises(DataError, match=r"test-00001-of-00002\.parquet is missing"):
        ingest(data_config(folder, format="parquet"), store)


# --- row groups ---


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [(1000, 1000, 512), (0, 0, 1), (2000, 3 * 2**30, 41), (2, 2**32, 1), (1000, -1, 512)],
)
def test_a_part_of_a_row_group_has_few_bytes(rows: int, size: int, expected: int) -> None:
    assert part_rows(rows, size) == expected


def test_row_groups_are_held_up_to_a_count_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def read(_: str, group: int) -> pa.ChunkedArray:
        reads.append(group)
        return pa.chunked_array([pa.array([bytes(1000)])])

    held = HeldGroups(read)
    for group in [*range(HELD_GROUPS), *range(HELD_GROUPS), HELD_GROUPS, 0]:
        held.get("a", group)
    assert reads == [*range(HELD_GROUPS + 1), 0]
    monkeypatch.setattr(row_groups, "HELD_BYTES", 2500)
    reads.clear()
    for group in (50, 51, 50, 51, 52, 50):
        held.get("a", group)
    assert reads == [50, 51, 52, 50]
    monkeypatch.setattr(row_groups, "HELD_BYTES", 10)  # less than one
    reads.clear()
    for group in (60, 60, 61, 60):
        held.get("a", group)
    assert reads == [60, 61, 60]


def test_a_large_row_group_is_noticed_and_read_in_parts(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(png(n), n % 2) for n in range(40)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "data" / f"{split}.parquet", rows, row_group_size=40)
    plain = pixels_of(tmp_path / "data", store)
    monkeypatch.setattr(parquet_rows, "part_rows", lambda rows, size: 3)
    monkeypatch.setattr(parquet, "LARGE_GROUP", 1000)
    heard: list[str] = []
    config = data_config(tmp_path / "data", format="parquet")
    index = ingest(config, store, notice=heard.append)
    assert [text.split(" has")[0] for text in heard] == [
        "train split: train.parquet",
        "test split: test.parquet",
    ]
    assert np.array_equal(RealImages(config, index, "train").resident(), plain[2])


# --- columns ---


def renamed(folder: Path, names: list[str]) -> Path:
    """Write cats and dogs with other names of the columns; further columns repeat the label."""
    split_files(folder, list(NAMES), [0, 1])
    for path in folder.iterdir():
        table = pq.read_table(path)
        extra = [table["label"]] * (len(names) - 2)
        pq.write_table(pa.Table.from_arrays([*table.columns, *extra], names=names), path)
    return folder


@pytest.mark.parametrize(
    "names", [["img", "label"], ["img", "fine_label", "coarse_label"], ["image", "class_id"]]
)
def test_usual_names_of_columns_are_guessed(tmp_path: Path, store: Store, names: list[str]) -> None:
    config = data_config(renamed(tmp_path / "data", names), format="parquet")
    index = ingest(config, store)
    assert len(RealImages(config, index, "train").resident()) == 2


def test_columns_can_be_chosen(tmp_path: Path, store: Store) -> None:
    folder = renamed(tmp_path / "data", ["picture", "species"])
    config = data_config(folder, format="parquet", image_column="picture", label_column="species")
    assert ingest(config, store).class_sizes("train") == {"class_00000": 1, "class_00001": 1}
    wrong = config.model_copy(update={"label_column": "genus"})
    with pytest.raises(DataError, match=r"columns picture, species; no column genus\. Correct"):
        open_reader(wrong).classes()


def test_several_possible_columns_are_listed(tmp_path: Path) -> None:
    folder = renamed(tmp_path / "data", ["image", "label", "fine_label"])
    with pytest.raises(
        DataError, match=r"columns label, fine_label can be meant\. Set data\.label"
    ):
        open_reader(data_config(folder, format="parquet")).classes()


def test_a_class_that_only_a_later_file_has_is_found_before_any_image_is_read(
    tmp_path: Path,
) -> None:
    write_parquet(tmp_path / "train-0.parquet", [(png(0), 0)], names=NAMES)
    write_parquet(tmp_path / "train-1.parquet", [(png(1), 0)], names=["eel"])
    with pytest.raises(DataError, match=r"train-1\.parquet: .*class 'eel'"):
        open_reader(data_config(tmp_path, format="parquet")).classes()


@pytest.mark.parametrize("statistics", [True, False])
def test_the_unlabelled_test_split_of_the_hub_is_refused_before_any_image_is_read(
    tmp_path: Path, statistics: bool
) -> None:
    folder = split_files(tmp_path / "data", list(NAMES), [-1, -1, -1])
    table = pq.read_table(folder / "test.parquet")
    pq.write_table(table, folder / "test.parquet", write_statistics=statistics)
    reader = open_reader(data_config(folder, format="parquet"))
    assert reader.classes("train") == NAMES
    with pytest.raises(DataError, match=r"all labels of the test split are -1.*validation split"):
        reader.parts("test")


def test_classes_are_counted_where_no_number_is_given(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [(png(0), 0), (png(1), 6), (png(2), 3)])
    reader = open_reader(data_config(tmp_path, format="parquet", num_classes=0))
    assert len(reader.classes()) == 7


def test_files_are_found_in_the_folder_of_the_hub_and_other_splits_are_named(
    tmp_path: Path,
) -> None:
    folder = parts(tmp_path, "data/train-00000-of-00001", "data/validation-00000-of-00001")
    reader = open_reader(data_config(folder, format="parquet"))
    assert [part.files for part in reader.parts("train")] == [
        ("data/train-00000-of-00001.parquet",)
    ]
    with pytest.raises(DataError, match=r"\(there are data/train, data/validation\)"):
        reader.classes("test")
