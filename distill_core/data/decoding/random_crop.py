"""Decoding of one image file to a random resized crop of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from distill_core.data.decoding.crops import CropDraws
from distill_core.data.decoding.image import BILINEAR, Size, decoded, factor_of


def decode_crop(
    data: bytes, side: int, crop: CropDraws, *, where: str = "image", scaled: bool = False
) -> np.ndarray:
    """Return a random resized crop of a whole image as (3, S, S) uint8 RGB; see `decode_image`.

    Exactly decoded, it equals torchvision's RandomResizedCrop of a PIL image, bilinear with
    antialiasing, at the same box.

    Args:
        data: an encoded image.
        side: S.
        crop: one draw.
        where: names the image in errors.
        scaled: see `decode_image`; large enough is a crop of S x S or more.

    Raises:
        DataError: as `decode_image` does.
    """

    def reduction(width: int, height: int) -> int:
        return int(crop.boxes(height, width)[0, 2:].min()) // side

    def cut(upright: Image.Image, whole: Size) -> Image.Image:
        top, left, down, across = crop.boxes(whole[1], whole[0])[0].tolist()
        box = (left, top, left + across, top + down)
        if (factor := factor_of(upright, whole)) == 1:
            return upright.crop(box).resize((side, side), BILINEAR)
        small = tuple(edge / factor for edge in box)
        return upright.resize((side, side), BILINEAR, box=small)

    pixels = np.asarray(decoded(data, cut, where, reduction if scaled else None))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
