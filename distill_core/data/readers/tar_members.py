"""The members of a tar archive, by the bytes that they take up in it; nothing is ever extracted.

`tarfile` ends without an error at a damaged header, and so would pass over the rest of an archive.
Here every header is checked, an archive must end with its end marker, and a member that is not a
regular file with a name of its own inside the archive has a `problem`.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from distill_core.data.readers.names import utf8
from distill_core.errors import DataError, shown

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED = 2**20  # bytes of a header that holds a long name
MARGIN = 20 * BLOCK  # that is examined behind the end marker
MAX_DIGITS = 18  # of a size
GZIP = b"\x1f\x8b"
COPY_AGAIN = "Copy it again."
LONG_NAME, LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
WITHOUT_DATA: Mapping[bytes, str] = MappingProxyType(
    {
        tarfile.LNKTYPE: "a hard link",
        tarfile.SYMTYPE: "a symbolic link",
        tarfile.CHRTYPE: "a device",
        tarfile.BLKTYPE: "a device",
        tarfile.FIFOTYPE: "a named pipe",
    }
)


class Member(NamedTuple):
    """One file in an archive."""

    name: str  # with slashes, without "./"; bytes that are not UTF-8 as escapes
    offset: int  # its first byte in the file of the outermost archive
    size: int  # bytes
    problem: str = ""  # why it cannot be used, as a sentence


@dataclass
class _Pending:
    """What the headers before a member's own state about it."""

    name: str = ""
    pax: dict[str, str] = field(default_factory=dict)


def members(stream: Any, where: str, *, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """Yield every file of an archive, hidden ones excluded; other code may move the stream.

    Args:
        stream: a binary file that can seek, or one that is decompressed.
        where: names the archive in errors.
        start: its first byte in the file.
        end: the byte after its last one; None: it ends with the file.

    Raises:
        DataError: it is truncated, damaged, compressed, or no tar archive.
    """
    end = stream.seek(0, 2) if end is None else end
    return _Archive(stream, where, start, end).members()


class _Archive:
    def __init__(self, stream: Any, where: str, start: int, end: int) -> None:
        self._stream, self._where, self._start, self._end = stream, where, start, end
        self._names: set[str] = set()

    def members(self) -> Iterator[Member]:
        self._refuse_gzip()
        offset, pending = self._start, _Pending()
        while (header := self._header(offset)) is not None:
            begin = offset + BLOCK
            if header.type in (*PAX, LONG_NAME, LONG_LINK, tarfile.XGLTYPE):
                self._extend(pending, header, begin)
                offset = begin + _padded(header.size)
                continue
            begin += self._sparse_blocks(header, offset)
            member = self._member(header, pending, begin)
            has_data = header.type not in WITHOUT_DATA and header.type != tarfile.DIRTYPE
            offset = begin + (_padded(member.size) if has_data else 0)
            if header.type != tarfile.DIRTYPE and not _is_hidden(member.name):
                yield member
            pending = _Pending()
        self._check_rest(offset)

    def _refuse_gzip(self) -> None:
        if self._end - self._start > len(GZIP) and self._read(self._start, len(GZIP)) == GZIP:
            raise self._error(
                "compressed with gzip, although its name ends otherwise. Name it .tar.gz, or use "
                "the result of `gunzip --keep`."
            )

    def _header(self, offset: int) -> tarfile.TarInfo | None:
        """Return the header at a byte, None for the end marker."""
        block = self._read(offset, BLOCK)
        if block == bytes(BLOCK):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if offset > self._start:
                raise self._error(f"damaged at byte {offset} ({error}). {COPY_AGAIN}") from None
            raise self._error(f"not a tar archive ({error}). Check the path.") from None
        if header.size < 0:
            raise self._error(f"damaged at byte {offset} (a negative size). {COPY_AGAIN}")
        return header

    def _extend(self, pending: _Pending, header: tarfile.TarInfo, begin: int) -> None:
        """Read a header that describes the next member; one that describes them all is ignored."""
        if header.type in (tarfile.XGLTYPE, LONG_LINK):
            return
        if header.size > MAX_EXTENDED:
            raise self._error(
                f"damaged at byte {begin - BLOCK} (a name of {header.size} bytes). {COPY_AGAIN}"
            )
        data = self._read(begin, header.size)
        if header.type == LONG_NAME:
            pending.name = _text(data.split(b"\0", 1)[0])
        else:
            pending.pax = self._pax(data, begin)

    def _pax(self, data: bytes, begin: int) -> dict[str, str]:
        """Return the records ``<length> <key>=<value>`` of an extended header."""
        records, place = {}, 0
        while place < len(data) and data[place]:
            length, _, _ = data[place : place + 20].partition(b" ")
            stop = place + int(length) if length.isdigit() else place
            key, found, value = data[place + len(length) + 1 : stop - 1].partition(b"=")
            if not found or stop > len(data):
                raise self._error(f"damaged at byte {begin + place} (a pax record). {COPY_AGAIN}")
            records[_text(key)] = _text(value)
            place = stop
        return records

    def _member(self, header: tarfile.TarInfo, pending: _Pending, begin: int) -> Member:
        raw = pending.pax.get("path") or pending.name or header.name
        size = header.size
        if (stated := pending.pax.get("size", "")).isdecimal():
            size = int(stated) if len(stated) <= MAX_DIGITS else sys.maxsize
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        name = utf8("/".join(parts))
        if header.type in WITHOUT_DATA:
            return Member(name, begin, 0, f"it is {WITHOUT_DATA[header.type]}, not a file.")
        if header.type == tarfile.DIRTYPE:
            return Member(name, begin, 0)
        if begin + size > self._end:
            raise self._error(
                f"truncated at byte {self._end}, but {shown(name)} ends at byte {begin + size}. "
                f"{COPY_AGAIN}"
            )
        return Member(name, begin, size, self._problem(header, pending, raw))

    def _problem(self, header: tarfile.TarInfo, pending: _Pending, raw: str) -> str:
        """Return why a member with content cannot be used; empty if it can."""
        is_new = raw not in self._names
        self._names.add(raw)
        sparse = any(key.startswith("GNU.sparse.") for key in pending.pax)
        tests = (
            (sparse or header.type == tarfile.GNUTYPE_SPARSE, "it is stored as a sparse file."),
            (header.type not in tarfile.SUPPORTED_TYPES, "its type is unknown."),
            (raw.startswith("/") or ".." in raw.split("/"), "its name leads out of the archive."),
            (utf8(raw) != raw, "its name is not UTF-8."),
            (not is_new, "a member of the same name comes before it."),
        )
        return next((text for applies, text in tests if applies), "")

    def _sparse_blocks(self, header: tarfile.TarInfo, offset: int) -> int:
        """Return the bytes of the further headers of a sparse file."""
        if header.type != tarfile.GNUTYPE_SPARSE:
            return 0
        size, more = 0, self._read(offset, BLOCK)[482]
        while more:
            size += BLOCK
            more = self._read(offset + size, BLOCK)[504]
        return size

    def _check_rest(self, offset: int) -> None:
        """Refuse an archive behind the end of this one, which other programs pass over."""
        self._stream.seek(offset)
        rest = bytes(self._stream.read(min(MARGIN, self._end - offset)))
        if rest.strip(b"\0"):
            raise self._error(
                f"has an end marker at byte {offset} and more data behind it. "
                "Use archives that are not joined into one file."
            )

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._end:
            raise self._error(
                f"truncated at byte {self._end}: it has no end marker. {COPY_AGAIN}"
                if self._end > self._start
                else "empty, not a tar archive. Copy it again."
            )
        self._stream.seek(offset)
        data = bytes(self._stream.read(size))
        if len(data) < size:
            raise self._error(f"truncated at byte {offset + len(data)}. {COPY_AGAIN}")
        return data

    def _error(self, problem: str) -> DataError:
        return DataError(f"{self._where}: {problem}")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".." for part in name.split("/"))
