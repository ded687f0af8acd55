"""The images of one archive as records, and the members that are passed over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distill_core.data.folders import DatasetFolder, reading
from distill_core.data.readers.tar_members import Member, members
from distill_core.errors import DataError

MAX_IMAGE = 2**27  # bytes of an image file


@contextmanager
def opened(root: DatasetFolder, uri: str) -> Iterator[Any]:
    """Open an archive; the errors of its file system become our own."""
    with reading(f"{root.url}/{uri}"), root.open(uri) as stream:
        yield stream


def members_of(root: DatasetFolder, uri: str, first: int = 0, last: int = -1) -> list[Member]:
    """Return the members of an archive without reading them.

    Args:
        root: the dataset's folder.
        uri: of the archive.
        first: its first byte, where it lies in another one.
        last: the byte after its last one; -1: it ends with the file.
    """
    with opened(root, uri) as stream:
        end = None if last < 0 else last
        return list(members(stream, f"{root.url}/{uri}", start=first, end=end))


def content(stream: Any, member: Member, where: str) -> tuple[bytes, str]:
    """Return the bytes of a member, or why it cannot be used, as a sentence.

    Args:
        stream: of the file of its archive.
        member: the member.
        where: names the archive in errors.
    """
    if member.problem:
        return b"", member.problem
    if member.size > MAX_IMAGE:
        return b"", f"it has {member.size:,} bytes, more than {MAX_IMAGE:,}."
    stream.seek(member.offset)
    data = bytes(stream.read(member.size))
    if len(data) < member.size:
        raise DataError(f"{where}: truncated at byte {member.offset + len(data)}. Copy it again.")
    return data, ""
