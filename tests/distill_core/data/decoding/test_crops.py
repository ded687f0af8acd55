"""Crops of whole images: the boxes and the pixels of torchvision, in any process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import functional

from distill_core.data.decoding.crops import RATIO, CropDraws, Rendition
from distill_core.data.decoding.image import decode_image
from distill_core.data.decoding.random_crop import decode_crop
from distill_core.data.ingest import ingest
from distill_core.data.real_images import RealImages
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, image_folder

SIDE = 24
SIZES = [(500, 375), (375, 500), (64, 64), (400, 20), (20, 400), (7, 5)]  # width, height


def photograph(width: int, height: int, *, kind: str = "JPEG", **options: Any) -> bytes:
    """Return an encoded image of smooth noise."""
    noise = np.random.default_rng(width + height).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return file.getvalue()


def draws(count: int = 200, scale: tuple[float, float] = (0.08, 1.0)) -> CropDraws:
    return CropDraws.sample(np.random.default_rng(0), count, scale)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_boxes_lie_in_the_image_with_legal_areas_and_ratios(width: int, height: int) -> None:
    top, left, down, across = draws().boxes(height, width).T.astype(float)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + down <= height).all()
    assert (left + across <= width).all()
    assert (down * across <= width * height).all()
    slack = 1 + 1 / np.minimum(down, across)  # sides are rounded
    assert (across / down <= RATIO[1] * slack).all()
    assert (across / down >= RATIO[0] / slack).all()
    if min(width, height) > 60:
        shares = down * across / (width * height)
        assert shares.min() < 0.2
        assert shares.max() > 0.7
        assert len({tuple(box) for box in draws().boxes(height, width).tolist()}) > 150


@pytest.mark.parametrize(
    ("size", "box"), [((400, 20), (0, 186, 20, 27)), ((20, 400), (186, 0, 27, 20))]
)
def test_an_image_that_no_try_fits_gives_torchvisions_central_crop(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    width, height = size
    boxes = draws(scale=(0.9, 1.0)).boxes(height, width)
    assert (boxes == box).all()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_crop_is_torchvisions_resized_crop_of_the_image(
    width: int, height: int, kind: str
) -> None:
    data, crops = photograph(width, height, kind=kind), draws()
    image = Image.open(io.BytesIO(data))
    for number in range(8):
        crop = crops.rows(np.array([number]))
        top, left, down, across = crop.boxes(height, width)[0].tolist()
        expected = functional.resized_crop(image, top, left, down, across, [SIDE, SIDE])
        assert np.array_equal(decode_crop(data, SIDE, crop).transpose(1, 2, 0), expected)


def test_a_crop_is_cut_after_the_image_is_turned() -> None:
    """Orientation 6: the file holds the image turned to the left."""
    upright, crop = Image.open(io.BytesIO(photograph(300, 200, kind="PNG"))), draws(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    expected = decode_crop(photograph(300, 200, kind="PNG"), SIDE, crop)
    assert np.array_equal(decode_crop(file.getvalue(), SIDE, crop), expected)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (501, 299)])
def test_scaled_decoding_changes_a_crop_slightly(size: tuple[int, int]) -> None:
    data, changed = photograph(*size), 0
    for number in range(20):
        crop = draws(scale=(0.3, 1.0)).rows(np.array([number]))
        exact = decode_crop(data, SIDE, crop).astype(int)
        scaled = decode_crop(data, SIDE, crop, scaled=True).astype(int)
        assert np.abs(exact - scaled).mean() < 2.0
        assert np.abs(exact - scaled).max() < 24
        changed += not np.array_equal(exact, scaled)
    assert changed > 10


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_image_that_is_turned_is_not_scaled(orientation: int) -> None:
    exif, crop = Image.Exif(), draws(1)
    exif[0x0112] = orientation
    data = photograph(500, 375, exif=exif)
    exact = decode_crop(data, SIDE, crop)
    assert np.array_equal(decode_crop(data, SIDE, crop, scaled=True), exact)


def test_nothing_is_scaled_below_the_size_of_the_crop() -> None:
    crop = draws(scale=(0.01, 0.02)).rows(np.array([3]))
    data = photograph(500, 375)
    assert min(crop.boxes(375, 500)[0, 2:]) < 2 * 60
    exact = decode_crop(data, 60, crop)
    assert np.array_equal(decode_crop(data, 60, crop, scaled=True), exact)
    png = photograph(500, 375, kind="PNG")
    assert np.array_equal(decode_crop(png, 8, crop, scaled=True), decode_crop(png, 8, crop))


@pytest.mark.parametrize("load", [{}, {"load": "center_crop", "resize": 28}])
def test_scaled_decoding_changes_a_square_slightly(load: dict[str, Any]) -> None:
    config = data_config(Path("unused"), side=SIDE, **load)
    data = photograph(500, 375)
    exact = decode_image(data, config).astype(int)
    scaled = decode_image(data, config, scaled=True).astype(int)
    assert 0 < np.abs(exact - scaled).mean() < 2.0
    small = photograph(47, 47)
    assert np.array_equal(decode_image(small, config, scaled=True), decode_image(small, config))


@pytest.mark.parametrize("scaled", [False, True])
def test_a_truncated_image_is_named(scaled: bool) -> None:
    with pytest.raises(DataError, match=r"n01/x\.jpg: cannot be decoded"):
        decode_crop(photograph(500, 375)[:-2000], SIDE, draws(1), where="n01/x.jpg", scaled=scaled)


@pytest.mark.parametrize("scaled", [False, True])
def test_processes_and_this_process_cut_the_same_crops(
    tmp_path: Path, store: Store, scaled: bool
) -> None:
    folder = image_folder(tmp_path / "data")
    for number, size in enumerate([(90, 60), (60, 90), (50, 200)]):
        (folder / "train" / "cat" / f"p{number}.jpg").write_bytes(photograph(*size))
    config = data_config(folder)
    index = ingest(config, store)
    here = RealImages(config, index, "train", decoders=1)
    there = RealImages(config, index, "train", decoders=2, start_pixels=0)
    places = np.random.default_rng(1).permutation(len(here.labels))
    rendition = Rendition(scaled, draws(len(places)))
    crops = here.at(places, rendition)
    assert np.array_equal(there.at(places, rendition), crops)
    assert not np.array_equal(here.at(places), crops)
    back = np.argsort(places)
    assert np.array_equal(here.at(places[back], rendition.rows(back)), crops[back])
    assert np.array_equal(
        there.resident(rendition=Rendition(scaled)), here.resident(rendition=Rendition(scaled))
    )
    there.close()
