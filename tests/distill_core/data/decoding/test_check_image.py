"""The check of an image accepts exactly what `decode_image` can decode."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFile

from distill_core.config.data import DataConfig
from distill_core.data.decoding.image import check_image, decode_image
from distill_core.errors import DataError
from tests.support.datasets import data_config, encoded, picture

SIZES = ((1, 1), (5, 3), (17, 40), (64, 64))
KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "baseline": lambda image: encoded(image, "JPEG"),
    "progressive": lambda image: encoded(image, "JPEG", progressive=True, quality=95),
    "restarts": lambda image: encoded(image, "JPEG", subsampling=0, restart_marker_blocks=2),
    "grey": lambda image: encoded(image.convert("L"), "JPEG"),
    "CMYK": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "two frames": lambda image: encoded(image, "MPO", save_all=True, append_images=[image]),
    "PNG": lambda image: encoded(image.convert("RGBA"), "PNG"),
    "LAB": lambda image: encoded(Image.frombytes("LAB", image.size, image.tobytes()), "TIFF"),
    "floats": lambda image: encoded(image.convert("F"), "TIFF"),
}


def verdict(call: Callable[..., object], data: bytes, config: DataConfig) -> str:
    """Return the error of a call, empty without one."""
    try:
        call(data, config)
    except DataError as error:
        return str(error)
    return ""


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file that is cut, has other bytes, or has random bytes inserted."""
    kind, place = rng.integers(3), int(rng.integers(len(data)))
    if kind == 0:
        return data[:place]
    if kind == 1:
        changed = bytearray(data)
        for other in rng.integers(len(data), size=rng.integers(1, 4)):
            changed[other] = rng.integers(256)
        return bytes(changed)
    return data[:place] + rng.bytes(int(rng.integers(1, 9))) + data[place:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_damage_is_found_exactly_where_decoding_finds_it(kind: str, size: tuple[int, int]) -> None:
    config, rng = data_config(None), np.random.default_rng([*map(ord, kind), *size])
    data = KINDS[kind](picture(1, size))
    found = set()
    for n in range(25):
        some = data if n == 0 else damaged(data, rng)
        expected = verdict(decode_image, some, config)
        assert verdict(check_image, some, config) == expected
        found.add(bool(expected))
    assert True in found


def test_a_jpeg_is_not_decoded_to_its_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, load = list[tuple[int, int]](), ImageFile.ImageFile.load

    def noted(self: ImageFile.ImageFile) -> object:
        sizes.append(self.size)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    check_image(encoded(picture(1, (640, 480)), "JPEG"), data_config(None))
    assert sizes
    assert max(sizes) <= (80, 60)


def test_a_cut_of_every_byte_of_a_jpeg_is_found_as_by_decoding() -> None:
    config = data_config(None)
    data = encoded(picture(2, (24, 16)), "JPEG", progressive=True)
    for length in range(len(data)):
        cut = data[:length]
        assert verdict(check_image, cut, config) == verdict(decode_image, cut, config)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["progressive"]
