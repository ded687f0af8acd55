"""Reader of synset archives, whose images are read where they lie, by their bytes in a file.

A split is a folder of tar files, one per class and named after it (``n01440764.tar``); one tar
file of such tar files; or one tar file of class folders. An image is addressed by the outermost
file, its first byte in it and its size, so that random access opens no archive. A compressed file
is one part, whatever is in it, and offsets are those of the decompressed one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from distill_core.config.data import DataConfig
from distill_core.data.files.local import ListedFile
from distill_core.data.folders import DatasetFolder, locate
from distill_core.data.readers.archive_images import content, members_of, opened
from distill_core.data.readers.compression import Sink, archive_stem, is_compressed
from distill_core.data.readers.names import is_image
from distill_core.data.readers.parts import is_current, stamp_of
from distill_core.data.readers.passed_over import OTHER, OUTSIDE, PassedOver
from distill_core.data.readers.record import Address, Part, Record, Split
from distill_core.data.readers.split_classes import check_names
from distill_core.data.readers.split_files import find_archives
from distill_core.data.readers.tar_members import Member, members
from distill_core.errors import DataError


@dataclass(frozen=True)
class Block:
    """The archive of a class, or one of class folders: a range of bytes of a file."""

    file: ListedFile
    wnid: str  # empty: its members lie in class folders
    first: int  # byte in the file
    last: int  # byte after the last one; -1: unknown


class TarsReader:
    """Reads synset archives; classes are numbered in alphabetical order.

    The files of a part are the archive and the class that it holds, if it holds only one; `first`
    and `last` are bytes in the archive.
    """

    def __init__(self, config: DataConfig) -> None:
        self._root = locate(config)
        self._name = {"train": config.train, "test": config.test}
        self._blocks = cache(self._survey)
        self._names = cache(self._class_names)
        self._passed_over = {"train": PassedOver(), "test": PassedOver()}
        self.sink: Sink | None = None  # see `record.Unpacks`

    def classes(self, split: Split = "train") -> tuple[str, ...]:
        """Return the names of the archives or of the folders in one, in alphabetical order.

        Raises:
            DataError: a name is not UTF-8, or the training split lacks a class of the other one.
        """
        check_names(self._names(split), self._names("train"), self._where(split))
        return self._names(split)

    def parts(self, split: Split) -> Sequence[Part]:
        """Return one part for each archive; their records are not counted before they are read."""
        return [
            Part(
                split,
                f"{split}-{number:05d}",
                files=(block.file.path, block.wnid) if block.wnid else (block.file.path,),
                first=block.first,
                last=block.last,
                bytes=block.last - block.first if block.last >= 0 else -1,
                stamp=stamp_of([block.file]),
            )
            for number, block in enumerate(self._blocks(split))
        ]

    def passed_over(self, split: Split) -> PassedOver:
        """Return what was passed over so far in archives."""
        return self._passed_over[split]

    def notices(self, split: Split) -> list[str]:
        """Return sentences about members that are passed over, as far as they were read."""
        return self._passed_over[split].sentences()

    def classes_of(self, part: Part, names: Sequence[str]) -> tuple[str, ...]:
        """Return the class of an archive that has only one, else all."""
        return part.files[1:] or tuple(names)

    def records(self, part: Part, classes: Sequence[str]) -> Iterator[Record]:
        """Yield every image of an archive, in its order.

        Raises:
            DataError: the archive is truncated or damaged.
        """
        labels = {name: label for label, name in enumerate(classes)}
        uri, *wnids = part.files
        where = f"{self._root.url}/{uri}" + (f" (class {wnids[0]})" if part.first else "")
        nested, wnid_of_all = not wnids and self._is_nested(uri), wnids[0] if wnids else ""
        with opened(self._root, uri, sink=self.sink) as stream:
            found = members(stream, where, start=part.first, end=_end(part.last))
            pairs = _of_inner(stream, found, where) if nested else ((m, wnid_of_all) for m in found)
            for member, only in pairs:
                wnid, name = ("", "") if only is None else _place(member.name, only, uri)
                if not is_image(name):
                    self._passed_over[part.split].add(OTHER, [f"{uri}/{member.name}"])
                elif not wnid:
                    self._passed_over[part.split].add(OUTSIDE, [f"{uri}/{member.name}"])
                else:
                    data, problem = content(stream, member, where)
                    yield Record(labels[wnid], uri, member.offset, name, data, problem)

    def is_current(self, part: Part) -> bool:
        """Return whether the archive of a part is the one that was planned."""
        return is_current(part, self._root)

    def fetch(self, addresses: Sequence[Address]) -> list[bytes]:
        """Return ranges of bytes of the files."""
        return self._root.read_ranges(addresses)

    def _survey(self, split: Split) -> tuple[Block, ...]:
        """Return the archives of a split, from the headers of a single file at most."""
        files = find_archives(self._root, self._name[split], split)
        first = self._first_member(files[0].path)
        if first.endswith(".tar"):
            return tuple(block for file in files for block in self._inner(file, split))
        if len(files) == 1 and _has_class_folders(first, files[0].path):
            return (_whole(files[0], ""),)
        return tuple(_whole(file, archive_stem(file.path)) for file in files)

    def _first_member(self, uri: str) -> str:
        """Return the name of the first image or archive in an archive; empty if it has none."""
        with opened(self._root, uri, sparse=True) as stream:
            names = (member.name for member in members(stream, f"{self._root.url}/{uri}"))
            return next((name for name in names if name.endswith(".tar") or is_image(name)), "")

    def _inner(self, file: ListedFile, split: Split) -> Iterator[Block]:
        """Yield the archives in an archive, or itself if it is compressed."""
        if is_compressed(file.path):
            yield _whole(file, "")
            return
        for member in members_of(self._root, file.path, sparse=True):
            if not member.name.endswith(".tar"):
                self._passed_over[split].add(OTHER, [f"{file.path}/{member.name}"])
                continue
            _check_inner(member, f"{self._root.url}/{file.path}")
            yield Block(file, archive_stem(member.name), member.offset, member.offset + member.size)

    def _is_nested(self, uri: str) -> bool:
        return is_compressed(uri) and self._first_member(uri).endswith(".tar")

    def _class_names(self, split: Split) -> tuple[str, ...]:
        names = set[str]()
        for block in self._blocks(split):
            names |= {block.wnid} if block.wnid else self._classes_in(block.file)
        return tuple(sorted(names))

    def _classes_in(self, file: ListedFile) -> frozenset[str]:
        nested = self._is_nested(file.path)
        if is_compressed(file.path) and file.version:
            return _classes_in_packed(self._root, file, nested)
        return _classes_in(self._root, file, nested)

    def _where(self, split: Split) -> str:
        return f"{self._root.url}/{self._name[split].strip('/')}"


def _of_inner(
    stream: Any, found: Iterator[Member], where: str
) -> Iterator[tuple[Member, str | None]]:
    """Yield members of the archives in a compressed one with their class; None beside archives."""
    for member in found:
        if not member.name.endswith(".tar"):
            yield member, None
            continue
        first, last, wnid = member.offset, member.offset + member.size, archive_stem(member.name)
        for inner in members(stream, f"{where} (class {wnid})", start=first, end=last):
            yield inner, wnid


def _classes_in(root: DatasetFolder, file: ListedFile, nested: bool) -> frozenset[str]:
    """Return the classes of an archive of class folders, or of an archive of archives."""
    uri, found = file.path, set[str]()
    for member in members_of(root, uri):
        wnid, name = _place(member.name, "", uri)
        if not nested and wnid and is_image(name):
            found.add(wnid)
        elif nested and member.name.endswith(".tar"):
            _check_inner(member, f"{root.url}/{uri}")
            found.add(archive_stem(member.name))
    return frozenset(found)


_classes_in_packed = lru_cache(maxsize=256)(_classes_in)  # it is decompressed for them


def _check_inner(member: Member, where: str) -> None:
    if member.problem:
        raise DataError(
            f"{where}: member {member.name} cannot be used: {member.problem} Make the archive "
            "again without it."
        )


def _whole(file: ListedFile, wnid: str) -> Block:
    return Block(file, wnid, 0, -1 if is_compressed(file.path) else file.size)


def _end(last: int) -> int | None:
    return None if last < 0 else last


def _has_class_folders(first: str, uri: str) -> bool:
    """Return whether an archive is one of class folders, by the name of its first member."""
    folders = first.split("/")[:-1]
    return len(folders) > 1 or (len(folders) == 1 and folders[0] != archive_stem(uri))


def _place(name: str, wnid: str, uri: str) -> tuple[str, str]:
    """Return the class of a member, which may be empty, and its name within the class.

    Args:
        name: of the member.
        wnid: the only class of the archive; empty: it has class folders.
        uri: of the archive, after which a folder around all of them may be named.
    """
    if wnid:
        return wnid, name.removeprefix(f"{wnid}/")
    below = name.removeprefix(f"{archive_stem(uri)}/")
    folder, slash, rest = below.partition("/")
    return (folder, rest) if slash else ("", below)
