"""JPEG files whose EXIF data is wrong in one of many ways, and whose pixels are fine."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.datasets import encoded, picture

EXIF = b"Exif\0\0"
ORIENTATION = 6  # stored in every file: a quarter turn clockwise
TAG = 0x0112
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8}  # bytes of a value, by TIFF type
PLAIN = encoded(picture(6, (16, 12)), "JPEG", quality=90)


@dataclass(frozen=True)
class OddPhoto:
    """One file."""

    data: bytes
    legible: bool  # whether the orientation can still be read


def odd_photos(count: int, *, seed: int) -> Iterator[OddPhoto]:
    """Yield files of `PLAIN` with EXIF data in which a few bytes, or many, were changed."""
    rng = random.Random(seed)
    for _ in range(count):
        order = rng.choice("<>")
        exif, table = whole_exif(order)
        changed = _changed(bytearray(exif), rng)
        yield OddPhoto(with_exif(changed), changed[:table] == exif[:table])


def with_exif(exif: bytes) -> bytes:
    """Return `PLAIN` with EXIF data."""
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(EXIF) + len(exif)) + EXIF + exif
    return PLAIN[:2] + segment + PLAIN[2:]


def whole_exif(order: str) -> tuple[bytes, int]:
    """Return the EXIF data of a camera, and the length of its header and first table."""
    camera, gps, thumbnail = 0x8769, 0x8825, 0x0201
    first = [
        *((0x010F, 2, b"Maker\0"), (0x0110, 2, b"Model of a camera\0"), (TAG, 3, ORIENTATION)),
        *((0x011A, 5, (72, 1)), (0x011B, 5, (72, 1)), (0x0128, 3, 2), (0x0131, 2, b"Editor 1.0\0")),
        *((0x0132, 2, b"2024:01:01 00:00:00\0"), (0x0213, 3, 1), (camera, 4, 0), (gps, 4, 0)),
    ]
    more = [
        *((0x829A, 5, (1, 60)), (0x9000, 7, b"0230"), (0x927C, 7, bytes(range(40)))),
        *((0x9204, 10, (-1, 3)), (0xA002, 4, 16), (0xA005, 4, 0)),
    ]
    place = [(0x0000, 1, b"\2\3\0\0"), (0x0001, 2, b"N\0"), (0x0002, 5, (52, 1, 31, 1, 0, 1))]
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    # Laid out twice: the places of the further tables are known after the first time.
    starts = {camera: 0, gps: 0}
    for _ in range(2):
        blocks, start = [], len(header)
        for name, tags in ((None, first), (camera, more), (gps, place), (thumbnail, [])):
            known = [(tag, kind, starts.get(tag, value)) for tag, kind, value in tags]
            blocks.append(_table(known, start, order))
            if name in starts:
                starts[name] = start
            start += len(blocks[-1])
    return header + b"".join(blocks), len(header) + 2 + 12 * len(first)


def _table(tags: list[tuple[int, int, object]], start: int, order: str) -> bytes:
    """Return an image file directory that begins at `start`, with its values after it."""
    entries, values = b"", b""
    behind = start + 2 + 12 * len(tags) + 4
    for tag, kind, value in tags:
        data = _value(kind, value, order)
        if len(data) > 4:
            field = struct.pack(f"{order}I", behind + len(values))
            values += data
        else:
            field = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, kind, len(data) // SIZES[kind]) + field
    return struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values


def _value(kind: int, value: object, order: str) -> bytes:
    match value:
        case bytes():
            return value
        case int():
            return struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value)
        case tuple():
            return struct.pack(f"{order}{len(value)}{'i' if kind == 10 else 'I'}", *value)
    raise TypeError(f"{value!r}")


def _changed(exif: bytearray, rng: random.Random) -> bytes:
    """Return EXIF data with one kind of change."""
    match rng.choice(("few", "few", "many", "cut", "noise", "type", "count", "offset")):
        case "few":
            for _ in range(rng.randint(1, 6)):
                exif[rng.randrange(len(exif))] = rng.randrange(256)
        case "many":
            for _ in range(rng.randint(20, 200)):
                exif[rng.randrange(len(exif))] = rng.randrange(256)
        case "cut":
            del exif[rng.randrange(len(exif)) :]
        case "noise":
            exif[rng.choice((0, 4, 8)) :] = rng.randbytes(rng.randint(0, 300))
        case "type":
            _set_field(exif, rng, 2, rng.randrange(20), "H")
        case "count":
            _set_field(exif, rng, 4, rng.choice((0, 2, 3, 1000, 2**31, 2**32 - 1)), "I")
        case "offset":
            _set_field(exif, rng, 8, rng.choice((0, 8, len(exif) - 1, 2**32 - 1)), "I")
    return bytes(exif)


def _set_field(exif: bytearray, rng: random.Random, at: int, value: int, kind: str) -> None:
    """Overwrite the type, count or value of a random tag of the first table."""
    order = "<" if exif[:2] == b"II" else ">"
    (count,) = struct.unpack_from(f"{order}H", exif, 8)
    struct.pack_into(f"{order}{kind}", exif, 10 + 12 * rng.randrange(count) + at, value)
