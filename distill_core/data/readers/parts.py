"""The division of a split into parts: consecutive groups of records, bounded in number and bytes.

A part should take between seconds and a minute, so that little is lost with a process, and many
processes find work. Groups, such as classes, stay whole unless one alone exceeds a bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii as quoted

from distill_core.data.files.local import ListedFile
from distill_core.data.folders import DatasetFolder
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


def with_lists(stamp: str, *lists: object) -> str:
    """Return the stamp of a part that depends on lists of labels or classes as well.

    Args:
        stamp: of its files.
        lists: what was read from the lists; equal lists have equal representations.
    """
    return hashlib.sha256(repr((stamp, *lists)).encode()).hexdigest()


def ranges(count: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive ranges of at most `step` records: first record, record after the last."""
    for first in range(0, count, step):
        yield first, min(count, first + step)


def stamp_of(files: Iterable[ListedFile]) -> str:
    """Return a hash over the uri, the size and the version of some files."""
    digest = hashlib.sha256()
    for path, size, version in files:
        # As `json.dumps` writes them, in a fifth of its time.
        digest.update(f"[{quoted(path)}, {size}, {quoted(version)}]".encode())
    return digest.hexdigest()


def stamp_of_pieces(stamps: Iterable[str]) -> str:
    """Return the stamp of a part from those of its pieces; pieces of one file have the same."""
    return hashlib.sha256("".join(dict.fromkeys(stamps)).encode()).hexdigest()


def is_current(part: Part, root: DatasetFolder, stamp: Callable[[str], str] = str) -> bool:
    """Return whether the file that holds the records of a part is the one that was planned.

    Args:
        part: the part.
        root: the dataset's folder.
        stamp: returns the stamp of the part, given that of its file.

    Raises:
        DataError: there is no such file.
    """
    uri = part.files[0]
    if stamp(stamp_of([root.listed(uri)])) == part.stamp:
        return True
    # Some file systems describe a single file in other words than a listing does.
    beside = root.files_in(uri.rpartition("/")[0]).files
    return any(stamp(stamp_of([file])) == part.stamp for file in beside if file.path == uri)


def _groups(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    count = size = 0  # of the group; a sum for each piece takes seconds for thousands of classes
    for piece in pieces:
        count, size = count + piece.count, size + piece.bytes
        too_large = count > PART_RECORDS or size > PART_BYTES
        if group and (too_large or not _follows(piece, group[-1])):
            yield group
            group, count, size = [], piece.count, piece.bytes
        group.append(piece)
    if group:
        yield group


def _follows(piece: Piece, last: Piece) -> bool:
    """Return whether a piece may follow another one in a part."""
    if piece.last < 0:
        return last.last < 0
    return last.file == piece.file and last.last == piece.first


def _part(split: Split, group: Sequence[Piece]) -> Part:
    files = tuple(dict.fromkeys(piece.file for piece in group))
    return Part(
        split,
        name="",
        files=files,
        first=group[0].first,
        last=group[-1].last,
        count=sum(piece.count for piece in group),
        bytes=sum(piece.bytes for piece in group),
        stamp=stamp_of_pieces(piece.stamp for piece in group),
    )
