"""Compressed tar files as streams: read forwards only, and decompressed once.

Nothing in such a file can be found without decompressing everything before it, so it is not read in
place. Its bytes, decompressed, go to a sink while they are read for the first time; see `archives`.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from distill_core.errors import DataError

OPENERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        ".tar.gz": gzip.open,
        ".tgz": gzip.open,
        ".tar.bz2": bz2.open,
        ".tbz2": bz2.open,
        ".tar.xz": lzma.open,
        ".txz": lzma.open,
    }
)
COMPRESSED = tuple(OPENERS)  # endings of names
ARCHIVES = (".tar", *COMPRESSED)
UNREADABLE = (".tar.zst", ".tzst", ".tar.lz4", ".tar.z", ".tar.br")  # not by the standard library
CHUNK = 2**20
WINDOW = 2**24  # bytes behind the place of a stream that can be read again
# More bytes from fewer are no images: JPEG hardly shrinks, and bitmaps of one colour are rare.
MAX_RATIO = 200
FREE_BYTES = 2**28  # that may come from fewer
COPY_AGAIN = "Copy it again."


class Sink(Protocol):
    """Receives a decompressed archive from its first byte to its last."""

    def write(self, data: bytes) -> object:
        """Take the next bytes."""

    def close(self) -> object:
        """Keep what was written: the archive was read to its end, and is undamaged."""


def is_compressed(path: str) -> bool:
    """Return whether a tar file is compressed, by its name."""
    return path.endswith(COMPRESSED)


def archive_stem(path: str) -> str:
    """Return the name of an archive without its folders and its ending."""
    name = path.rpartition("/")[2]
    ending = next((ending for ending in ARCHIVES if name.endswith(ending)), "")
    return name.removesuffix(ending) if ending else name.rpartition(".")[0] or name


class Decompressed:
    """The contents of a compressed file, as a binary file that is read forwards.

    Args:
        raw: the compressed file.
        where: its address, whose ending decides how it is compressed.
        sink: receives everything that is decompressed.
    """

    def __init__(self, raw: Any, where: str, sink: Sink | None = None) -> None:
        ending = next(ending for ending in COMPRESSED if where.endswith(ending))
        self._raw, self._where, self._sink = raw, where, sink
        self._file = OPENERS[ending](raw)
        self._behind = bytearray()  # the last bytes before `_end`
        self._end = 0  # bytes that were decompressed
        self._place = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a byte; the end of the file, which is unknown, counts as very far."""
        if whence == 2:
            return sys.maxsize
        self._place = offset
        return offset

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end.

        Raises:
            DataError: the file is truncated, damaged or grows too much, or the bytes were passed
                long ago.
        """
        while self._end < self._place + size and self._more():
            self._forget()
        first = self._place - (self._end - len(self._behind))
        if first < 0:
            raise DataError(
                f"{self._where}: a sample of more than {WINDOW:,} bytes, which a compressed "
                "archive cannot have. Decompress the archive."
            )
        data = bytes(self._behind[first : first + size])
        self._place += len(data)
        return data

    def finish(self) -> None:
        """Read to the end, which shows damage, and close the sink."""
        while self._more():
            self._forget()
        if self._sink is not None:
            self._sink.close()

    def _more(self) -> bool:
        """Decompress some bytes; return whether there were any."""
        data = self._decompressed()
        self._end += len(data)
        if self._end > max(FREE_BYTES, MAX_RATIO * self._raw.tell()):
            raise DataError(
                f"{self._where}: more than {MAX_RATIO} times as large decompressed, which images "
                "are not. If it is right, decompress it."
            )
        self._behind += data
        if self._sink is not None and data:
            self._sink.write(data)
        return bool(data)

    def _forget(self) -> None:
        """Drop what lies far behind the place, and may not be read again."""
        far = min(self._place, self._end) - WINDOW - (self._end - len(self._behind))
        if far > WINDOW:
            del self._behind[:far]

    def _decompressed(self) -> bytes:
        try:
            return bytes(self._file.read(CHUNK))
        except EOFError:
            raise DataError(
                f"{self._where}: truncated at byte {self._raw.tell()}. {COPY_AGAIN}"
            ) from None
        except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise self._damaged(error) from None
        except OSError as error:
            if error.errno is not None or not isinstance(self._file, bz2.BZ2File):
                raise  # of the file system
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self._where}: damaged before byte {self._raw.tell()} ({error}). {COPY_AGAIN}"
        )
