"""From the bytes of one image to a square uint8 array; one error says what is wrong with it."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from distill_core.config.schema import DataConfig
from distill_core.errors import DataError

MAX_PIXELS = 50_000_000  # a 12 kB PNG can expand to more than memory holds
BILINEAR = Image.Resampling.BILINEAR


def decode_image(data: bytes, config: DataConfig, *, where: str = "image") -> np.ndarray:
    """Return an image as (3, S, S) uint8 RGB, EXIF orientation applied.

    Args:
        data: an encoded image of any mode Pillow knows.
        config: side, and how another shape becomes square.
        where: names the image in errors.

    Raises:
        DataError: truncated, not an image, or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{where}: {image.width} x {image.height} pixels; 50 M at most."
                    )
                square = _square(_rgb(image), config)
        except UnidentifiedImageError:
            raise DataError(f"{where}: {len(data)} bytes that are not an image.") from None
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            raise DataError(f"{where}: cannot be decoded ({error}).") from None
    return np.ascontiguousarray(np.moveaxis(np.asarray(square), -1, 0))


def _rgb(image: Image.Image) -> Image.Image:
    """Return the first frame, upright, as RGB; transparency is laid over black."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):
        values = np.asarray(upright, np.float64)
        top = 65535 if values.max() > 255 else 255
        upright = Image.fromarray((values * (255 / top)).round().clip(0, 255).astype(np.uint8))
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return upright.convert("RGB")


def _square(image: Image.Image, config: DataConfig) -> Image.Image:
    """Bring an image to S x S: squished, or resized by its short side and cut in the middle."""
    side = config.side
    if image.size == (side, side) and config.load == "squish":
        return image
    if config.load == "squish":
        return image.resize((side, side), BILINEAR)
    assert config.resize is not None
    factor = config.resize / min(image.size)
    width, height = (max(side, round(length * factor)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), BILINEAR)
    return resized.crop((left, top, left + side, top + side))
