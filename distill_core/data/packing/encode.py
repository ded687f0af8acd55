"""One image as it is packed."""

from __future__ import annotations

import io

from PIL import Image

from distill_core.config.packs import PackConfig
from distill_core.data.decoding.image import BILINEAR, open_rgb


def packed_image(data: bytes, pack: PackConfig, *, where: str = "image") -> bytes:
    """Return the bytes of an image in a pack.

    A smaller copy has the orientation that EXIF states, RGB pixels, and no metadata; what
    `decode_image` does with modes and transparency is done before. An image that would not get
    smaller keeps its bytes, so that no image is enlarged, or encoded again at its own size.

    Args:
        data: an encoded image.
        pack: its size, shape and encoding.
        where: names the image in errors.

    Raises:
        DataError: it cannot be decoded.
    """
    if pack.size is None or pack.encoding == "original":
        return data
    image = open_rgb(data, where=where)
    size = target_size(image.size, pack.size, squish=pack.shape == "squish")
    if size == image.size:
        return data
    return _jpeg(image.resize(size, BILINEAR), pack.quality)


def target_size(size: tuple[int, int], limit: int, *, squish: bool) -> tuple[int, int]:
    """Return the (width, height) that an image is packed with.

    Args:
        size: of the image.
        limit: of its short side, or of both sides where it is squished.
        squish: whether both sides are limited.
    """
    width, height = size
    if squish:
        return (min(width, limit), min(height, limit))
    short = min(size)
    if short <= limit:
        return size
    return (limit * width // short, limit * height // short)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()
