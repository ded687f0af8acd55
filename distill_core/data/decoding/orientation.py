"""The orientation that the EXIF data of an image states, read apart from everything else in it.

Cameras and editors write EXIF with wrong lengths, types and offsets. None of that concerns the
pixels, so only one tag is read here, and data in which it cannot be found state no orientation.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType

from PIL import ExifTags, Image

TAG = int(ExifTags.Base.Orientation)
SHORT = 3  # the TIFF type of the tag, 16 bits
ENTRY_BYTES = 12  # of a tag: (tag, type, count, value or its offset)
METHODS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
EXIF = b"Exif\0\0"  # begins the EXIF data of a JPEG


def oriented(image: Image.Image, exif: bytes = b"") -> Image.Image:
    """Return a loaded image, turned or mirrored as its EXIF or XMP data state.

    Args:
        image: the image; its pixels have been decoded.
        exif: its EXIF data where they were removed before it was opened.
    """
    number = read_orientation(exif or image.info.get("exif"))
    if number is None:
        try:
            # Also finds it in XMP, in text chunks of a PNG, and stored as another integer type.
            number = image.getexif().get(TAG)
        except Exception:  # noqa: BLE001 - whatever breaks in the metadata, the pixels are there
            return image
    method = METHODS.get(number) if isinstance(number, int) else None
    return image if method is None else image.transpose(method)


def read_orientation(exif: object) -> int | None:
    """Return the orientation in EXIF data, 1 to 8, or None where none is legible.

    Args:
        exif: the bytes, with or without the prefix that they have in a JPEG.
    """
    if not isinstance(exif, bytes):
        return None
    exif = exif.removeprefix(EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    found = None
    for place in range(start + 2, start + 2 + count * ENTRY_BYTES, ENTRY_BYTES):
        if place + ENTRY_BYTES > len(exif):
            break
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, place)
        if (tag, kind, values) == (TAG, SHORT, 1) and 1 <= value <= 8:
            found = value
    return found
