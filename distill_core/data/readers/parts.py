"""The division of a split into parts: consecutive groups of records, bounded in number and bytes.

A part should take between seconds and a minute, so that little is lost with a process, and many
processes find work. Groups, such as classes, stay whole unless one alone exceeds a bound.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from distill_core.data.files.local import ListedFile
from distill_core.data.readers.record import Part, Split

PART_RECORDS = 4096
PART_BYTES = 2**29


@dataclass(frozen=True)
class Piece:
    """Some records that stay together: a class folder, a row group, or a range of one."""

    file: str  # uri of the file or the folder
    count: int
    bytes: int
    stamp: str  # see `stamp_of`
    first: int = 0  # record in `file`
    last: int = -1  # record after the last one; -1: all, and other files may follow


def assemble(split: Split, pieces: Iterable[Piece]) -> tuple[Part, ...]:
    """Return consecutive pieces as parts within the bounds, unless one piece alone exceeds them.

    Args:
        split: the split that they belong to.
        pieces: in order; ranges of one file follow each other.
    """
    return tuple(
        replace(_part(split, group), name=f"{split}-{number:05d}")
        for number, group in enumerate(_groups(pieces))
    )


def cut(folder: str, files: Sequence[ListedFile]) -> Iterator[Piece]:
    """Yield the files of a folder as one piece, or as several if they exceed a bound.

    Args:
        folder: its uri.
        files: its records, one file each.
    """
    first = 0
    while first < len(files):
        last, size = first, 0
        while last < len(files) and last - first < PART_RECORDS and size < PART_BYTES:
            size += max(0, files[last].size)
            last += 1
        some = files[first:last]
        if len(some) == len(files):
            yield Piece(folder, len(some), size, stamp_of(some))
        else:
            yield Piece(folder, len(some), size, stamp_of(some), first, last)
        first = last


def one_each(split: Split, files: Sequence[ListedFile]) -> list[Part]:
    """Return one part for each container of records, which are counted when they are read."""
    return [
        Part(
            split,
            f"{split}-{number:05d}",
            files=(file.path,),
            last=file.size,
            bytes=file.size,
            stamp=stamp_of([file]),
        )
        for number, file in enumerate(files)
    ]


def with_lists(part: Part, *lists: object) -> Part:
    """Return a part whose stamp depends on lists of labels or classes as well.

    Args:
        part: with the stamp of its files.
        lists: what was read from the lists; equal lists have equal representations.
    """
    return replace(part, stamp=hashlib.sha256(repr((part.stamp, *lists)).encode()).hexdigest())


def ranges(count: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive ranges of at most `step` records: first record, record after the last."""
    for first in range(0, count, step):
        yield first, min(count, first + step)


def stamp_of(files: Iterable[ListedFile]) -> str:
    """Return a hash over the uri, the size and the version of some files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(json.dumps(file).encode())
    return digest.hexdigest()


def _groups(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    for piece in pieces:
        if group and not _fits(group, piece):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _fits(group: Sequence[Piece], piece: Piece) -> bool:
    """Return whether a piece may follow others in one part."""
    if sum(p.count for p in group) + piece.count > PART_RECORDS:
        return False
    if sum(p.bytes for p in group) + piece.bytes > PART_BYTES:
        return False
    if piece.last < 0:
        return group[-1].last < 0
    return group[-1].file == piece.file and group[-1].last == piece.first


def _part(split: Split, group: Sequence[Piece]) -> Part:
    files = tuple(dict.fromkeys(piece.file for piece in group))
    stamps = dict.fromkeys(piece.stamp for piece in group)
    return Part(
        split,
        name="",
        files=files,
        first=group[0].first,
        last=group[-1].last,
        count=sum(piece.count for piece in group),
        bytes=sum(piece.bytes for piece in group),
        stamp=hashlib.sha256("".join(stamps).encode()).hexdigest(),
    )
