"""Decoding of one image file to a square uint8 array."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from distill_core.config.data import DataConfig
from distill_core.data.decoding.metadata import without_metadata
from distill_core.data.decoding.orientation import oriented
from distill_core.errors import DataError, one_line

MAX_PIXELS = 50_000_000  # a 12 kB PNG can expand to more than the memory
# Listed, because Pillow would otherwise start Ghostscript for an EPS file named .jpg.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
JPEG = b"\xff\xd8\xff"  # the first bytes
BILINEAR = Image.Resampling.BILINEAR
T = TypeVar("T")

# Pillow warns of odd metadata without naming the file; what matters of it is an error below.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes, config: DataConfig, *, where: str = "image") -> np.ndarray:
    """Return an image as (3, S, S) uint8 RGB, EXIF orientation applied.

    The first frame of an animation is used, transparency is composited over black, and 16-bit grey
    becomes 8-bit. An image is decoded to its end, so that truncation is detected. Metadata never
    decides whether it can be decoded.

    Args:
        data: an encoded image in one of `FORMATS`; its file name does not matter.
        config: side, and the conversion of other shapes to squares.
        where: names the image in errors.

    Raises:
        DataError: it is truncated, not an image, or has more than `MAX_PIXELS`.
    """
    pixels = _decoded(data, lambda upright: np.asarray(_square(upright, config)), where)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def open_rgb(data: bytes, *, where: str = "image") -> Image.Image:
    """Return an image as RGB at its own size, decoded as by `decode_image`.

    Args:
        data: an encoded image in one of `FORMATS`.
        where: names the image in errors.

    Raises:
        DataError: as `decode_image` does.
    """
    return _decoded(data, lambda upright: upright, where)


def check_image(data: bytes, config: DataConfig, *, where: str = "image") -> None:
    """Check that an image can be decoded by `decode_image`, in less time.

    A JPEG is read to its end, but its pixels are computed at an eighth of its size: what can fail
    is the decoding of its bits, not the arithmetic of the transform that follows.

    Args:
        data: an encoded image in one of `FORMATS`.
        config: as for `decode_image`.
        where: names the image in errors.

    Raises:
        DataError: as `decode_image` does.
    """
    try:
        with _opened(data) as image:
            _check_size(image)
            if image.format == "JPEG":
                image.draft(None, (1, 1))
            image.load()
            if image.mode != "RGB" or "transparency" in image.info:
                _rgb(image)
    except Exception:  # noqa: BLE001 - decoders raise anything for a damaged file
        decode_image(data, config, where=where)


def check_header(data: bytes, *, where: str = "image") -> None:
    """Check the format and the size of an image, without decoding its pixels.

    Args:
        data: an encoded image in one of `FORMATS`.
        where: names the image in errors.

    Raises:
        DataError: it is not an image, or has more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image)
    except UnidentifiedImageError:
        raise DataError(
            f"{where}: {len(data)} bytes that are not an image. Replace the file."
        ) from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything for a damaged file
        raise DataError(
            f"{where}: its header cannot be read ({_one_line(error)}). Replace the file."
        ) from None


def _opened(data: bytes) -> Image.Image:
    """Open an image; a JPEG without the search for its format, a tenth of the time if small."""
    stream = io.BytesIO(data)
    if data.startswith(JPEG):
        return JpegImageFile(stream)
    return Image.open(stream, formats=FORMATS)


def _decoded(data: bytes, use: Callable[[Image.Image], T], where: str) -> T:
    """Return what is made of an upright RGB image; without its metadata, where it fails with them.

    Args:
        data: an encoded image.
        use: receives the image.
        where: names the image in errors.
    """
    try:
        return use(_upright(data))
    except Exception as error:  # noqa: BLE001 - decoders raise anything for a damaged file
        first = error
    smaller, exif = without_metadata(data)
    if len(smaller) < len(data):
        try:
            return use(_upright(smaller, exif))
        except Exception as error:  # noqa: BLE001 - likewise
            first = error
    if isinstance(first, UnidentifiedImageError):
        raise DataError(
            f"{where}: {len(data)} bytes that are not an image. Replace the file."
        ) from None
    raise DataError(f"{where}: cannot be decoded ({_one_line(first)}). Replace the file.") from None


def _upright(data: bytes, exif: bytes = b"") -> Image.Image:
    """Return an image as RGB, turned as its metadata state; `exif`: where they were removed."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image)
        image.load()
        return _rgb(oriented(image, exif))


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS // 10**6} M"
        )


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB."""
    if image.mode == "F":
        raise ValueError("floating point pixels, whose value of white is unknown")
    if image.mode.startswith("I"):  # a 16-bit file, whichever mode Pillow chooses
        values = np.asarray(image).astype(np.float64) * (255 / 65535)
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _square(image: Image.Image, config: DataConfig) -> Image.Image:
    """Return an image of S x S: both sides resized, or a centre crop after resizing the short side.

    The centre crop equals torchvision's Resize(resize) and CenterCrop(S), but only the pixels of
    the crop are computed, so a 10,000 x 3 strip needs no more memory than any other image.
    """
    size = (config.side, config.side)
    if config.resize is None:
        return image if image.size == size else image.resize(size, BILINEAR)
    short = min(image.size)
    box: list[tuple[float, float]] = []
    for length in image.size:
        resized = config.resize * length // short
        start = round((resized - config.side) / 2)
        scale = length / resized
        box.append((start * scale, min((start + config.side) * scale, length)))
    (left, right), (top, bottom) = box
    return image.resize(size, BILINEAR, box=(left, top, right, bottom))


def _one_line(error: BaseException) -> str:
    return one_line(error)[:200] or type(error).__name__
