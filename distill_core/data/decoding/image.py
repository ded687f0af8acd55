"""From the bytes of one image to a square uint8 array; one error says what is wrong with it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from distill_core.config.data import DataConfig
from distill_core.errors import DataError

MAX_PIXELS = 50_000_000  # a 12 kB PNG can expand to more than memory holds
# Named, because Pillow would also start Ghostscript for an EPS that calls itself a JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
BILINEAR = Image.Resampling.BILINEAR
DAMAGE = (  # what Pillow raises on files that end early or lie about themselves
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError),
    *(NotImplementedError, RuntimeError, MemoryError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


def decode_image(data: bytes, config: DataConfig, *, where: str = "image") -> np.ndarray:
    """Return an image as (3, S, S) uint8 RGB, EXIF orientation applied.

    Of an animation the first frame counts; transparency is laid over black; 16-bit grey becomes
    8-bit. An image is decoded to its end, so a truncated one is found.

    Args:
        data: an encoded image, of a kind in `FORMATS`; its name does not matter.
        config: side, and how another shape becomes square.
        where: names the image in errors.

    Raises:
        DataError: truncated, not an image, or of more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_bombs(image)
            # In place: the copy that Pillow would return costs as much as decoding a small image.
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.asarray(_square(_rgb(image), config))
    except UnidentifiedImageError:
        raise DataError(f"{where}: {len(data)} bytes that are not an image.") from None
    except DAMAGE as error:
        raise DataError(f"{where}: cannot be decoded ({_said(error)}).") from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _refuse_bombs(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, {MAX_PIXELS // 10**6} M at most")


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB."""
    if image.mode == "F":
        raise ValueError("floating point pixels, whose white is unknown")
    if image.mode.startswith("I"):  # a 16-bit file, whatever Pillow unpacks it to
        values = np.asarray(image).astype(np.float64) * (255 / 65535)
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _square(image: Image.Image, config: DataConfig) -> Image.Image:
    """Bring an image to S x S: squished, or the middle of it with its short side resized.

    The second equals torchvision's Resize(resize) then CenterCrop(S), but only the pixels of the
    crop are computed: a 10,000 x 3 strip needs no more memory than any other image.
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


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
