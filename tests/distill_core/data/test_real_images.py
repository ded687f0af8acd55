from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill_core.data.decoding.image import decode_image
from distill_core.data.ingest import ingest
from distill_core.data.parts.read import CHUNK
from distill_core.data.real_images import RealImages
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, image_folder, picture, png


def test_pixels_are_those_of_the_rows_in_the_order_asked(tmp_path: Path, store: Store) -> None:
    config = data_config(image_folder(tmp_path / "data"))
    images = RealImages(config, ingest(config, store), "train")
    expected = [np.moveaxis(np.asarray(picture(value)), -1, 0) for value in (12, 0, 12, 1)]
    assert np.array_equal(images.pixels([5, 0, 5, 1]), expected)
    assert images.pixels([]).shape == (0, 3, 8, 8)


def test_resident_images_and_labels_leave_out_unreadable_images(
    tmp_path: Path, store: Store
) -> None:
    folder = image_folder(tmp_path / "data")
    (folder / "train" / "cat" / "1.png").write_bytes(b"broken")
    config = data_config(folder, max_bad_fraction=0.5)
    images = RealImages(config, ingest(config, store), "train")
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 0, 1, 1, 1]
    expected = [np.moveaxis(np.asarray(picture(value)), -1, 0) for value in (0, 2, 10, 11, 12)]
    assert np.array_equal(images.resident(), expected)


def test_the_folder_may_move_after_it_was_ingested(tmp_path: Path, store: Store) -> None:
    config = data_config(image_folder(tmp_path / "data"))
    index = ingest(config, store)
    before = RealImages(config, index, "test").resident()
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = RealImages(data_config(tmp_path / "moved"), index, "test")
    assert np.array_equal(moved.resident(), before)


def test_an_image_that_changed_after_it_was_ingested_is_refused(
    tmp_path: Path, store: Store
) -> None:
    config = data_config(image_folder(tmp_path / "data"))
    images = RealImages(config, ingest(config, store), "train")
    (tmp_path / "data" / "train" / "dog" / "11.png").write_bytes(png(99))
    assert images.pixels([0]).shape == (1, 3, 8, 8)
    with pytest.raises(DataError, match=r"train/dog/11\.png.*not the image that was ingested"):
        images.resident()


def test_a_deleted_dataset_is_named(tmp_path: Path, store: Store) -> None:
    config = data_config(image_folder(tmp_path / "data"))
    images = RealImages(config, ingest(config, store), "train")
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="data: no such folder"):
        images.resident()


def test_cifar10_is_read_correctly_across_row_groups_and_chunks(
    cifar10_path: Path, tmp_path: Path, store: Store
) -> None:
    rows = pq.read_table(cifar10_path / "test.parquet").slice(0, 2 * CHUNK + 100)
    for split, part in (("train", rows), ("test", rows.slice(0, 100))):
        pq.write_table(part, tmp_path / f"{split}.parquet", row_group_size=500)
    config = data_config(tmp_path, format="parquet", num_classes=10, side=32)
    index = ingest(config, store)
    assert "airplane" in index.class_names
    seen: list[tuple[int, int]] = []
    images = RealImages(config, index, "train")
    pixels = images.resident(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(rows), len(rows))
    source = index.train["offset"].to_numpy()
    files, labels = rows["image"].to_pylist(), rows["label"].to_numpy()
    assert np.array_equal(images.labels, labels[source])
    for place in range(0, len(pixels), 97):
        expected = decode_image(files[source[place]]["bytes"], config)
        assert np.array_equal(pixels[place], expected)
    assert np.array_equal(np.sort(source), np.arange(len(rows)))
