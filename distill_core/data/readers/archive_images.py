"""The images of one archive as records, and the members that are passed over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distill_core.data.files.errors import reading
from distill_core.data.folders import DatasetFolder
from distill_core.data.readers.compression import Decompressed, Sink, is_compressed
from distill_core.data.readers.tar_members import Member, members
from distill_core.errors import DataError

MAX_IMAGE = 2**27  # bytes of an image file


@contextmanager
def opened(
    root: DatasetFolder, uri: str, *, sparse: bool = False, sink: Sink | None = None
) -> Iterator[Any]:
    """Open an archive; the errors of its file system become our own.

    A compressed one is decompressed, and can be read forwards only.

    Args:
        root: the dataset's folder.
        uri: of the archive.
        sparse: only headers are read, far from each other.
        sink: receives a compressed archive, which is then read to its end.
    """
    packed = is_compressed(uri)
    with reading(f"{root.url}/{uri}"), root.open(uri, sparse=sparse and not packed) as stream:
        if not packed:
            yield stream
            return
        decompressed = Decompressed(stream, f"{root.url}/{uri}", sink)
        yield decompressed
        if sink is not None:
            decompressed.finish()


def members_of(root: DatasetFolder, uri: str, *, sparse: bool = False) -> list[Member]:
    """Return the members of an archive; see `opened`."""
    with opened(root, uri, sparse=sparse) as stream:
        return list(members(stream, f"{root.url}/{uri}"))


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
