"""Images are read from packs by the same rows: few ranges, no byte twice, damage is named."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from distill_core.config.data import DataConfig
from distill_core.config.packs import PackConfig
from distill_core.data.decoding.crops import CropDraws, Rendition
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import SPLITS
from distill_core.data.packing.build import source_config
from distill_core.data.packs import cache_settings
from distill_core.data.real_images import RealImages
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, encoded, picture
from tests.support.packed import packed


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_pack_is_an_error_with_the_remedy(
    cut: bool, small: DataConfig, store: Store
) -> None:
    config, index = packed(small, store)
    name = next(name for name in store.names("pack/data") if name.endswith("00000.pack"))
    path = Path(store.url) / "pack" / "data" / name
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(data[:9]) if cut else bytes(data[:99]) + b"?" + bytes(data[100:]))
    damaged = r"00000\.pack: the image at byte 0 is not .* Delete .*_done"

    def read() -> None:
        for split in SPLITS:
            RealImages(config, index, split).resident()

    with pytest.raises(DataError, match=damaged):
        read()


@pytest.mark.parametrize(
    ("folder", "ending", "message"),
    [
        ("data", "00000.pack", r"00000\.pack: no such pack, but a marker lists it"),
        ("data", "parquet", r"parquet: no such object, but a marker lists it"),
        ("_done", "json", r"_done/.*: no such marker, so the images of .* are not packed"),
    ],
)
def test_a_missing_file_is_an_error_with_the_remedy(
    folder: str, ending: str, message: str, small: DataConfig, store: Store
) -> None:
    config, index = packed(small, store)
    for name in store.names(f"pack/{folder}"):
        if name.endswith(ending):
            store.delete(f"pack/{folder}/{name}")
    with pytest.raises(DataError, match=message) as caught:
        RealImages(config, index, "train").resident()
    assert "\n" not in str(caught.value)
    assert "run" in str(caught.value).lower()


def test_packs_read_few_ranges_and_no_byte_twice(
    small: DataConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, index = packed(small, store)
    read: list[tuple[str, int]] = []
    honest = Store.read_range

    def counting(self: Store, path: str, start: int, length: int) -> bytes:
        read.append((path, length))
        return honest(self, path, start, length)

    monkeypatch.setattr(Store, "read_range", counting)
    images = RealImages(config, index, "train")
    assert len(images.pixels([])) == 0
    assert not read
    images.resident()
    packs = {path for path, _ in read}
    assert len(read) == len(packs)
    assert sum(size for _, size in read) == sum(index.train["size"].to_pylist())
    read.clear()
    order = np.random.default_rng(0).permutation(12)
    for start in range(0, 12, 3):
        images.at(order[start : start + 3])
    assert sum(size for _, size in read) == sum(index.train["size"].to_pylist())


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DataConfig, DatasetIndex]:
    """Return a dataset of 60 images in a store in memory, with a cache in an empty folder."""
    for split, count in (("train", 14), ("test", 1)):
        for wnid in ("ant", "bee", "cat", "dog"):
            folder = tmp_path / "data" / split / wnid
            folder.mkdir(parents=True)
            for n in range(count):
                image = picture(100 * ord(wnid[0]) + n, (64, 64))
                (folder / f"{split}{n}.png").write_bytes(encoded(image))
    pack = PackConfig(encoding="original", pack_bytes=200_000)
    config = data_config(tmp_path / "data", num_classes=4, side=16, pack=pack)
    store = Store(f"memory://{uuid4().hex}")
    config, index = packed(config, store)
    monkeypatch.setenv(cache_settings.FOLDER, str(tmp_path / "cache"))
    return config, index


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the bytes of each request for a part of a pack are added."""
    sizes: list[int] = []
    whole, part = Store.read, Store.read_range

    def read(self: Store, path: str) -> bytes:
        data = whole(self, path)
        if path.startswith("pack/"):
            sizes.append(len(data))
        return data

    def read_range(self: Store, path: str, start: int, length: int) -> bytes:
        sizes.append(length)
        return part(self, path, start, length)

    monkeypatch.setattr(Store, "read", read)
    monkeypatch.setattr(Store, "read_range", read_range)
    return sizes


@pytest.mark.parametrize("repeated", [True, False])
def test_an_epoch_reads_hardly_more_than_the_packs_and_a_warm_one_nothing(
    repeated: bool, remote: tuple[DataConfig, DatasetIndex], counted: list[int]
) -> None:
    config, index = remote
    plain = RealImages(source_config(config), index, "train")
    expected, total = plain.resident(), sum(index.train["size"].to_pylist())
    images = RealImages(config, index, "train", repeated=repeated)
    epochs = []
    for epoch in range(2):
        counted.clear()
        order = np.random.default_rng(epoch).permutation(56)
        for start in range(0, 56, 8):
            batch = order[start : start + 8]
            assert np.array_equal(images.at(batch), expected[batch])
        epochs.append(sum(counted))
    assert total <= epochs[0] <= 1.05 * total
    assert epochs[1] == (0 if repeated else total)


def test_a_damaged_file_of_the_cache_is_replaced(
    remote: tuple[DataConfig, DatasetIndex], tmp_path: Path, counted: list[int]
) -> None:
    config, index = remote
    images = RealImages(config, index, "train", repeated=True)
    expected = images.resident()
    for path in (tmp_path / "cache" / "distill-packs").glob("*.pack"):
        data = bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)
    counted.clear()
    assert np.array_equal(images.resident(), expected)
    assert counted
    images.resident()
    counted.clear()
    assert np.array_equal(images.resident(), expected)
    assert not counted


def test_crops_of_whole_images_are_cut_from_packs(
    remote: tuple[DataConfig, DatasetIndex],
) -> None:
    config, index = remote
    draws = CropDraws.sample(np.random.default_rng(0), 6, (0.1, 1.0))
    crops, places = Rendition(scaled=True, crops=draws), np.arange(0, 54, 9)
    cut = RealImages(config, index, "train").at(places, crops)
    plain = RealImages(source_config(config), index, "train")
    assert np.array_equal(cut, plain.at(places, crops))
    assert not np.array_equal(cut, plain.at(places))
