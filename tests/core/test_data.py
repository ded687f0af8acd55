"""Index, readers and decoding, on files a user might have."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill_core.config.schema import DataConfig
from distill_core.data.decode import decode_image
from distill_core.data.index import DatasetIndex, ingest, load_index
from distill_core.data.real import RealImages
from distill_core.errors import DataError
from distill_core.storage.store import Store

CLASSES = ("cat", "dog")


def config(**changes: object) -> DataConfig:
    values = {
        "name": "pets",
        "format": "imagefolder",
        "num_classes": 2,
        "side": 16,
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
    }
    return DataConfig.model_validate(values | changes)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def square(value: int, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> Image.Image:
    colour = value if len(mode) == 1 else (value,) * len(Image.new(mode, (1, 1)).getbands())
    return Image.new(mode, size, colour)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(CLASSES):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for n in range(count):
                (place / f"{n}.png").write_bytes(encoded(square(100 * label + n)))
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def index_of(folder: Path, store: Store, **changes: object) -> DatasetIndex:
    return ingest(config(path=str(folder), **changes), store)


def as_parquet(folder: Path, target: Path) -> Path:
    target.mkdir()
    for split in ("train", "test"):
        files = sorted((folder / split).rglob("*.png"))
        rows = {
            "image": [{"bytes": f.read_bytes(), "path": f.name} for f in files],
            "label": [CLASSES.index(f.parent.name) for f in files],
        }
        kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = pa.schema([("image", kinds), ("label", pa.int64())])
        pq.write_table(pa.table(rows, schema=schema), target / f"{split}.parquet")
    return target


def test_a_folder_gives_an_index_that_reads_back_and_serves_pixels(
    folder: Path, store: Store
) -> None:
    made = index_of(folder, store)
    index = load_index(store, made.id)
    assert [(c.id, c.wnid) for c in index.classes] == [(0, "cat"), (1, "dog")]
    assert (index.train.num_rows, index.test.num_rows) == (6, 4)
    assert index.rows_of("train", 1).tolist() == [3, 4, 5]
    images = RealImages(config(path=str(folder)), index, "train")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.resident()[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert images.pixels([5, 0])[:, 0, 0, 0].tolist() == [102, 0]


def test_the_same_content_elsewhere_is_the_same_dataset(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    first = index_of(folder, store)
    shutil.move(folder, tmp_path / "moved")
    assert index_of(tmp_path / "moved", store).id == first.id
    assert store.folders("datasets") == (first.id,)


def test_one_changed_image_changes_its_class_fingerprint_only(folder: Path, store: Store) -> None:
    before = index_of(folder, store)
    (folder / "train" / "dog" / "1.png").write_bytes(encoded(square(7)))
    after = index_of(folder, store)
    assert before.id != after.id
    assert before.fingerprints["cat"] == after.fingerprints["cat"]
    assert before.fingerprints["dog"] != after.fingerprints["dog"]
    assert before.test_fingerprint == after.test_fingerprint


def test_hugging_face_parquet_holds_the_same_pixels(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    settings = config(path=str(as_parquet(folder, tmp_path / "pq")), format="parquet")
    index = ingest(settings, store)
    assert [c.wnid for c in index.classes] == ["class_00000", "class_00001"]
    pixels = RealImages(settings, index, "train").resident()
    assert pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]


def test_class_names_of_hugging_face_metadata_are_used(cifar10_path: Path, store: Store) -> None:
    settings = config(path=str(cifar10_path), format="parquet", num_classes=10, side=32)
    index = ingest(settings, store)
    assert index.classes[3].wnid == "cat"
    assert (index.train.num_rows, index.test.num_rows) == (50_000, 10_000)
    assert all(len(index.rows_of("train", label)) == 5_000 for label in range(10))


def test_digits_are_stratified_and_fixed(store: Store) -> None:
    settings = config(format="digits", num_classes=10, side=32)
    index = ingest(settings, store)
    assert (index.train.num_rows, index.test.num_rows) == (1_437, 360)
    counts = [len(index.rows_of("test", label)) for label in range(10)]
    assert max(counts) - min(counts) <= 2
    pixels = RealImages(settings, index, "test").resident()
    assert pixels.shape == (360, 3, 32, 32)
    assert pixels.max() == 255


def test_hidden_files_are_skipped(folder: Path, store: Store) -> None:
    (folder / "train" / "cat" / ".DS_Store").write_bytes(b"noise")
    assert index_of(folder, store).train.num_rows == 6


def test_bad_images_within_the_tolerance_are_kept_out_with_their_reason(
    folder: Path, store: Store
) -> None:
    (folder / "train" / "cat" / "1.png").write_bytes(b"<html>")
    index = index_of(folder, store, max_bad_fraction=0.2)
    assert index.rows_of("train", 0).tolist() == [0, 2]
    assert "not an image" in index.train["reason"].to_pylist()[1]
    images = RealImages(config(path=str(folder)), index, "train")
    assert len(images.resident()) == len(images.labels) == 5


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        (lambda f: (f / "train/cat/1.png").write_bytes(b""), ("cat/1.png", "cannot be used")),
        (lambda f: shutil.rmtree(f / "train" / "dog"), ("1 classes", "data.num_classes says 2")),
        (lambda f: (f / "train" / "emu").mkdir(), ("3 classes", "data.num_classes says 2")),
        (lambda f: [p.unlink() for p in (f / "train/dog").iterdir()], ("'dog'", "no readable")),
        (lambda f: shutil.rmtree(f / "test"), ("test split", "no readable image")),
        (lambda f: shutil.rmtree(f / "train"), ("no such folder",)),
        (lambda f: shutil.rmtree(f), ("no such folder",)),
    ],
    ids=["empty file", "class gone", "class more", "class empty", "no test", "no train", "no path"],
)
def test_broken_input_is_refused_in_one_line_and_nothing_is_committed(
    folder: Path, store: Store, breakage: object, words: tuple[str, ...]
) -> None:
    breakage(folder)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        index_of(folder, store)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert store.folders("datasets") == ()


def test_parquet_with_other_columns_names_them(tmp_path: Path, store: Store) -> None:
    pq.write_table(pa.table({"jpg": [b""], "cls": [0]}), tmp_path / "train.parquet")
    settings = config(path=str(tmp_path), format="parquet")
    with pytest.raises(DataError, match="columns cls, jpg; expected image"):
        ingest(settings, store)


def test_labels_outside_the_classes_are_bad_images(
    folder: Path, tmp_path: Path, store: Store
) -> None:
    path = as_parquet(folder, tmp_path / "pq")
    with pytest.raises(DataError, match="label 1 is not one of 1 classes"):
        ingest(config(path=str(path), format="parquet", num_classes=1), store)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "I;16", "1"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    grey = square(200, "L")
    image = (
        grey.convert("I").point(lambda v: v * 257).convert("I;16")
        if mode == "I;16"
        else (grey.convert(mode))
    )
    pixels = decode_image(encoded(image), config())
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8
    assert abs(int(pixels.mean()) - 200) <= (60 if mode == "1" else 1)


def test_cmyk_jpeg_becomes_rgb() -> None:
    data = encoded(square(100).convert("CMYK"), "JPEG", quality=95)
    assert abs(decode_image(data, config()).mean() - 100) < 3


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (16, 16))
    image.paste((255, 255, 255), (0, 0, 16, 8))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated: show it turned by 90 degrees clockwise
    pixels = decode_image(encoded(image, "JPEG", exif=exif, quality=95), config())
    assert pixels[0, 8, 12] > 200
    assert pixels[0, 8, 3] < 50


@pytest.mark.parametrize(("size", "expected"), [((64, 16), (3, 16, 16)), ((1, 1), (3, 16, 16))])
def test_other_shapes_become_square(size: tuple[int, int], expected: tuple[int, ...]) -> None:
    for load, resize in (("squish", None), ("center_crop", 20)):
        settings = config(load=load, resize=resize)
        assert decode_image(encoded(square(9, size=size)), settings).shape == expected


def test_center_crop_keeps_the_middle() -> None:
    wide = Image.new("RGB", (48, 16))
    wide.paste((255, 255, 255), (16, 0, 32, 16))
    pixels = decode_image(encoded(wide), config(load="center_crop", resize=16))
    assert (pixels == 255).all()


def test_truncated_and_foreign_bytes_are_named() -> None:
    whole = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    for data, word in ((whole[: len(whole) // 2], "cannot be decoded"), (b"GIF", "not an image")):
        with pytest.raises(DataError, match=word):
            decode_image(data, config(), where="n1/x.JPEG")


def test_a_decompression_bomb_is_refused_before_it_expands() -> None:
    bomb = encoded(Image.new("1", (10_000, 6_000)))
    with pytest.raises(DataError, match="10000 x 6000"):
        decode_image(bomb, config())
