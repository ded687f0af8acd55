"""Removal of the metadata of image files that Pillow cannot open because of it.

What is removed never affects pixels: the conversion to RGB ignores colour profiles.
"""

from __future__ import annotations

import struct

from distill_core.data.decoding.orientation import EXIF

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))  # JPEG markers that are no segment
SCAN, APP0, APP1, APP14, APP15, COMMENT = 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
# Two segments decide how colours are decoded; with fewer bytes libjpeg ignores them.
COLOUR_SEGMENTS = {APP0: (b"JFIF\0", 18), APP14: (b"Adobe", 16)}
PNG_METADATA = frozenset((b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs", b"tIME"))


def without_metadata(data: bytes) -> tuple[bytes, bytes]:
    """Return an image file without metadata, and its EXIF data.

    Args:
        data: a file; JPEG and PNG are supported, any other is returned as it is.
    """
    if data.startswith(JPEG):
        return _of_jpeg(data)
    return _of_png(data) if data.startswith(PNG) else (data, b"")


def _of_jpeg(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, place = [data[:2]], b"", 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != SCAN:
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        length = 0 if marker in WITHOUT_LENGTH else int.from_bytes(data[place + 2 : place + 4])
        segment = data[place : place + 2 + length]
        if marker == APP1 and segment[4:].startswith(EXIF):
            exif += segment[4 + len(EXIF) :]
        if not APP0 <= marker <= APP15 and marker != COMMENT:
            kept.append(segment)
        elif marker in COLOUR_SEGMENTS:
            start, size = COLOUR_SEGMENTS[marker]
            if segment[4:].startswith(start) and len(segment) >= size:
                kept.append(segment)
        place += 2 + length
    return b"".join((*kept, data[place:])), exif


def _of_png(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, place = [PNG], b"", len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        if kind == b"eXIf":
            exif = chunk[8:-4]
        if kind not in PNG_METADATA:
            kept.append(chunk)
        place += len(chunk)
    return b"".join((*kept, data[place:])), exif
