from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from distill_core.data.decoding.image import decode_image
from distill_core.errors import DataError
from tests.support.datasets import data_config, encoded, picture

CONFIG = data_config("unused")
RED = (255, 0, 0)


def as_image(pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(pixels, 0, -1)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = picture(1)
    pixels = decode_image(encoded(image), CONFIG)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(as_image(pixels), np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("1", "PNG", (255, 255, 255)),
        ("L", "PNG", (76, 76, 76)),
        ("L", "JPEG", (76, 76, 76)),
        ("LA", "PNG", (76, 76, 76)),
        ("P", "GIF", RED),
        ("RGBA", "PNG", RED),
        ("RGBA", "WEBP", RED),
        ("CMYK", "JPEG", RED),
        ("YCbCr", "JPEG", RED),
        ("CMYK", "TIFF", RED),
    ],
)
def test_every_mode_becomes_rgb(mode: str, kind: str, expected: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (8, 8), RED)
    source = Image.new("1", (8, 8), 1) if mode == "1" else image.convert(mode)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode_image(encoded(source, kind, **lossless), CONFIG)
    assert pixels.shape == (3, 8, 8)
    assert np.abs(pixels[:, 4, 4].astype(int) - expected).max() <= 2


@pytest.mark.parametrize("value", [0, 200, 257 * 100, 65535])
def test_sixteen_bit_grey_is_scaled_by_its_range_and_not_by_its_content(value: int) -> None:
    image = Image.fromarray(np.full((8, 8), value, np.uint16))
    assert (decode_image(encoded(image), CONFIG) == round(value / 257)).all()


def test_floating_point_pixels_are_refused_because_their_range_is_unknown() -> None:
    data = encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
    with pytest.raises(DataError, match="white is unknown"):
        decode_image(data, CONFIG)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_black(mode: str) -> None:
    if mode == "P":
        data = encoded(Image.new("P", (8, 8), 3), transparency=3)
    else:
        data = encoded(Image.new("RGBA", (8, 8), (200, 200, 200, 0)).convert(mode))
    assert (decode_image(data, CONFIG) == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    image, exif = picture(2), Image.Exif()
    exif[0x0112] = orientation
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    expected = image.transpose(turned[orientation]) if orientation > 1 else image
    pixels = decode_image(encoded(image, exif=exif), CONFIG)
    assert np.array_equal(as_image(pixels), np.asarray(expected))


def test_an_animation_is_decoded_as_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, CONFIG)[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (8, 20), (13, 5), (40, 40)])
def test_squish_equals_resizing_both_sides(size: tuple[int, int]) -> None:
    image = picture(3, size)
    expected = image.resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(as_image(decode_image(encoded(image), CONFIG)), np.asarray(expected))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 31), (33, 10), (100, 75), (75, 101), (7, 6)])
@pytest.mark.parametrize(("side", "resize"), [(8, 8), (8, 9), (8, 11), (7, 12)])
def test_center_crop_equals_torchvision(size: tuple[int, int], side: int, resize: int) -> None:
    image = picture(4, size)
    config = data_config("unused", side=side, load="center_crop", resize=resize)
    expected = v2.Compose([v2.Resize(resize), v2.CenterCrop(side)])(image)
    difference = as_image(decode_image(encoded(image), config)).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1


def test_a_very_long_image_is_cropped_before_it_is_resized() -> None:
    config = data_config("unused", side=224, load="center_crop", resize=256)
    strip = Image.fromarray(np.tile(np.arange(10_000) // 40, (3, 1)).astype(np.uint8))
    pixels = decode_image(encoded(strip), config)  # resized as a whole: 218 M pixels
    assert pixels.shape == (3, 224, 224)
    assert set(np.unique(pixels)) <= {124, 125}


def test_a_crop_larger_than_the_resized_image_is_refused() -> None:
    with pytest.raises(ValidationError, match="resize"):
        data_config("unused", side=32, load="center_crop", resize=31)


@pytest.mark.parametrize("side", [7_100, 10_000, 14_000])
def test_a_decompression_bomb_is_refused_before_decoding(side: int) -> None:
    Image.MAX_IMAGE_PIXELS, limit = None, Image.MAX_IMAGE_PIXELS
    try:
        data = encoded(Image.new("1", (side, side)))
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    assert len(data) < 50_000
    with pytest.raises(DataError, match="pixels"):
        decode_image(data, CONFIG)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_an_image_truncated_anywhere_is_refused(kind: str) -> None:
    data = encoded(picture(5, (60, 60)), kind)
    for kept in np.linspace(0, len(data) * 0.97, 25).astype(int):
        with pytest.raises(DataError, match=r"^photo: "):
            decode_image(data[:kept], CONFIG, where="photo")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n",
    ],
    ids=["empty", "html", "eps"],
)
def test_a_file_that_is_not_an_image_is_reported_as_such(data: bytes) -> None:
    with pytest.raises(DataError, match=f"{len(data)} bytes that are not an image"):
        decode_image(data, CONFIG)


def _samples() -> list[bytes]:
    image = picture(6, (24, 16))
    options: dict[str, dict[str, Any]] = {"TIFF": {"compression": "tiff_deflate"}}
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
    return [encoded(image, kind, **options.get(kind, {})) for kind in kinds]


SAMPLES = _samples()


@pytest.mark.filterwarnings("ignore")  # of Pillow, about files that lie
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_file_either_decodes_or_raises_a_data_error(
    data: bytes, changes: list[tuple[float, int]]
) -> None:
    damaged = bytearray(data)
    for where, value in changes:
        damaged[int(where * where * len(damaged))] = value  # headers more often than pixels
    try:
        pixels = decode_image(bytes(damaged), CONFIG)
    except DataError:
        return
    assert pixels.shape == (3, 8, 8)


def test_decoding_leaves_its_input_unchanged() -> None:
    data = encoded(picture(7), "JPEG")
    first = decode_image(data, CONFIG)
    first[:] = 0  # what is returned belongs to the caller
    again = as_image(decode_image(data, CONFIG))
    assert np.array_equal(again, np.asarray(Image.open(io.BytesIO(data))))
