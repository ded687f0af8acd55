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
from distill_core.data.decoding.orientation import oriented, read_orientation
from distill_core.errors import DataError, one_line

MAX_PIXELS = 50_000_000  # a 12 kB PNG can expand to more than the memory
# Listed, because Pillow would otherwise start Ghostscript for an EPS file named .jpg.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
JPEG = b"\xff\xd8\xff"  # the first bytes
BILINEAR = Image.Resampling.BILINEAR
T = TypeVar("T")
Size = tuple[int, int]  # width, height
# Takes width and height of an upright image; returns by how much it may be decoded smaller.
Reduction = Callable[[int, int], int]

# Pillow warns of odd metadata without naming the file; what matters of it is an error below.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(
    data: bytes, config: DataConfig, *, where: str = "image", scaled: bool = False
) -> np.ndarray:
    """Return an image as (3, S, S) uint8 RGB, EXIF orientation applied.

    The first frame of an animation is used, transparency is composited over black, and 16-bit grey
    becomes 8-bit. An image is decoded to its end, so that truncation is detected. Metadata never
    decides whether it can be decoded.

    Args:
        data: an encoded image in one of `FORMATS`; its file name does not matter.
        config: side, and the conversion of other shapes to squares.
        where: names the image in errors.
        scaled: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, if that is still large enough.

    Raises:
        DataError: it is truncated, not an image, or has more than `MAX_PIXELS`.
    """
    short = config.side if config.resize is None else config.resize
    reduction = (lambda width, height: min(width, height) // short) if scaled else None
    square = decoded(data, lambda upright, whole: _square(upright, config, whole), where, reduction)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def open_rgb(data: bytes, *, where: str = "image") -> Image.Image:
    """Return an image as RGB at its own size, decoded as by `decode_image`.

    Args:
        data: an encoded image in one of `FORMATS`.
        where: names the image in errors.

    Raises:
        DataError: as `decode_image` does.
    """
    return decoded(data, lambda upright, _: upright, where)


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


def decoded(
    data: bytes,
    use: Callable[[Image.Image, Size], T],
    where: str,
    reduction: Reduction | None = None,
) -> T:
    """Return what is made of an upright RGB image; without its metadata, where it fails with them.

    Args:
        data: an encoded image.
        use: receives the image and its size before any reduction.
        where: names the image in errors.
        reduction: see `Reduction`; None: the image is decoded exactly.
    """
    try:
        return use(*_upright(data, reduction))
    except Exception as error:  # noqa: BLE001 - decoders raise anything for a damaged file
        first = error
    smaller, exif = without_metadata(data)
    if len(smaller) < len(data):
        try:
            return use(*_upright(smaller, reduction, exif))
        except Exception as error:  # noqa: BLE001 - likewise
            first = error
    if isinstance(first, UnidentifiedImageError):
        raise DataError(
            f"{where}: {len(data)} bytes that are not an image. Replace the file."
        ) from None
    raise DataError(f"{where}: cannot be decoded ({_one_line(first)}). Replace the file.") from None


def _upright(
    data: bytes, reduction: Reduction | None, exif: bytes = b""
) -> tuple[Image.Image, Size]:
    """Return an image as RGB, turned as its metadata state, and its size before any reduction.

    Args:
        data: an encoded image.
        reduction: by which it may be decoded smaller; None: it is not.
        exif: its metadata, where they were removed.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image)
        whole = image.size
        if reduction is not None and image.format == "JPEG":
            _reduce(image, reduction, exif)
        image.load()
        upright = oriented(image, exif)
        whole = whole if upright.size == image.size else whole[::-1]
        return _rgb(upright), whole


def _reduce(image: Image.Image, reduction: Reduction, exif: bytes) -> None:
    """Let a JPEG be decoded at the smallest size that a reduction allows, 1/8 at least.

    One that is to be turned is decoded exactly: its incomplete last line would become the first.
    """
    if read_orientation(exif or image.info.get("exif")) not in (None, 1):
        return
    most = max(1, reduction(*image.size))
    factor = max(each for each in (1, 2, 4, 8) if each <= most)
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))


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


def factor_of(image: Image.Image, whole: Size) -> int:
    """Return by how much an image was decoded smaller: 1, 2, 4 or 8 of its pixels became one.

    The last column and line may stand for fewer.

    Args:
        image: upright.
        whole: its size before.
    """
    factors = (1, 2, 4, 8)
    return next(
        f for f in factors if all(-(-a // f) == b for a, b in zip(whole, image.size, strict=True))
    )


def _square(image: Image.Image, config: DataConfig, whole: Size) -> Image.Image:
    """Return an image of S x S: both sides resized, or a centre crop after resizing the short side.

    The centre crop equals torchvision's Resize(resize) and CenterCrop(S), but only the pixels of
    the crop are computed, so a 10,000 x 3 strip needs no more memory than any other image.
    """
    size = (config.side, config.side)
    factor = factor_of(image, whole)
    if config.resize is None:
        box_of_all = (0, 0, whole[0] / factor, whole[1] / factor)
        return image if image.size == size else image.resize(size, BILINEAR, box=box_of_all)
    short = min(whole)
    box: list[tuple[float, float]] = []
    for length in whole:
        resized = config.resize * length // short
        start = round((resized - config.side) / 2)
        scale = length / resized
        box.append((start * scale, min((start + config.side) * scale, length)))
    (left, right), (top, bottom) = box
    edges = (left / factor, top / factor, right / factor, bottom / factor)
    return image.resize(size, BILINEAR, box=edges)


def _one_line(error: BaseException) -> str:
    return one_line(error)[:200] or type(error).__name__
