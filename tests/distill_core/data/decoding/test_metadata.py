"""Metadata turn an image or have no effect; they never decide whether it can be decoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from distill_core.data.decoding.image import decode_image
from distill_core.data.decoding.metadata import without_metadata
from distill_core.data.decoding.orientation import METHODS, read_orientation
from distill_core.errors import DataError
from tests.support.datasets import data_config, encoded, picture
from tests.support.odd_exif import EXIF, ORIENTATION, PLAIN, odd_photos, whole_exif, with_exif

CONFIG = data_config("unused", side=16)


def turned(number: int) -> np.ndarray:
    """Return the pixels of `PLAIN`, turned as an orientation states."""
    image = Image.open(io.BytesIO(PLAIN))
    return decode_image(
        encoded(image.transpose(METHODS[number]) if number in METHODS else image), CONFIG
    )


TURNED = {number: turned(number) for number in range(1, 9)}


def test_every_photograph_with_odd_exif_is_decoded_and_turned_if_legible() -> None:
    found = {"legible": 0, "turned": 0, "as stored": 0, "otherwise": 0}
    for photo in odd_photos(3000, seed=20):
        pixels = decode_image(photo.data, CONFIG)
        same = [number for number, each in TURNED.items() if np.array_equal(pixels, each)]
        assert same, "pixels that the file does not have"
        if photo.legible:
            assert same == [ORIENTATION]
        found["legible"] += photo.legible
        kind = {1: "as stored", ORIENTATION: "turned"}.get(same[0], "otherwise")
        found[kind] += 1
    assert min(found["legible"], found["as stored"]) > 300
    assert found["turned"] > found["legible"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("number", range(1, 9))
def test_an_orientation_is_read_in_both_byte_orders(order: str, number: int) -> None:
    exif, _ = whole_exif(order)
    tag = struct.pack(f"{order}HHI", 0x0112, 3, 1)
    before, after = exif.split(tag)
    exif = before + tag + struct.pack(f"{order}H", number) + after[2:]
    assert read_orientation(exif) == read_orientation(EXIF + exif) == number
    assert np.array_equal(decode_image(with_exif(exif), CONFIG), TURNED[number])


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff", 3]
)
def test_exif_without_a_table_states_no_orientation(exif: Any) -> None:
    assert read_orientation(exif) is None


@pytest.mark.parametrize("number", range(1, 9))
def test_an_orientation_in_xmp_is_applied(number: int) -> None:
    image = Image.open(io.BytesIO(PLAIN))
    xmp = f'<x tiff:Orientation="{number}"/>'.encode()
    data = encoded(image, "PNG", pnginfo=_text("XML:com.adobe.xmp", xmp.decode()))
    assert np.array_equal(decode_image(data, CONFIG), TURNED[number])


def _text(key: str, value: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, value)
    return info


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xed" + struct.pack(">H", 2 + 20) + b"Photoshop 3.0\0008BIM\0\0",
        b"\xff\xe0" + struct.pack(">H", 2 + 5) + b"JFIF\0",
        b"\xff\xee" + struct.pack(">H", 2 + 5) + b"Adobe",
    ],
    ids=["Photoshop", "JFIF", "Adobe"],
)
def test_a_segment_that_ends_early_is_passed_over(segment: bytes) -> None:
    data = with_exif(whole_exif("<")[0])
    pixels = decode_image(data[:2] + segment + data[2:], CONFIG)
    assert np.array_equal(pixels, TURNED[ORIENTATION])


def test_a_text_that_grows_too_large_does_not_matter() -> None:
    text = b"key\0\0" + zlib.compress(bytes(2 * PngImagePlugin.MAX_TEXT_CHUNK))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    data = encoded(Image.open(io.BytesIO(PLAIN)), "PNG")
    exif = whole_exif("<")[0]
    more = struct.pack(">I", len(exif)) + b"eXIf" + exif
    more += struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    header = 8 + 25
    pixels = decode_image(data[:header] + chunk + more + data[header:], CONFIG)
    assert np.array_equal(pixels, TURNED[ORIENTATION])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_without_metadata_has_the_same_pixels(kind: str) -> None:
    image, exif = picture(3, (30, 20)), Image.Exif()
    exif[0x0112], exif[0x010F] = ORIENTATION, "Maker"
    data = encoded(image, kind, exif=exif, dpi=(72, 72))
    smaller, removed = without_metadata(data)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(smaller))), np.asarray(Image.open(io.BytesIO(data)))
    )
    if kind != "WEBP":
        assert len(smaller) < len(data)
        assert read_orientation(removed) == ORIENTATION


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
def test_the_colours_of_a_jpeg_do_not_depend_on_its_metadata(mode: str) -> None:
    data = encoded(picture(4, (16, 16)).convert(mode), "JPEG", exif=EXIF + whole_exif("<")[0])
    smaller, exif = without_metadata(data)
    assert len(smaller) < len(data) - len(exif)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(smaller)).convert("RGB")),
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
    )


@pytest.mark.parametrize(
    "error", [AttributeError, RecursionError, OverflowError, struct.error, AssertionError, KeyError]
)
def test_any_exception_of_a_decoder_is_the_fault_of_its_image(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("of the decoder")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=r"^photo: cannot be decoded \(.*of the decoder"):
        decode_image(PLAIN, CONFIG, where="photo")
