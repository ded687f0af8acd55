"""Encoded images from packs, each compared with the digest in its row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from distill_core.data.packs.blocks import STAGE
from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.markers import FileInfo, Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

RANGE_BYTES = 2**24  # of one request, which neighbouring images share
REQUESTS = 8  # at a time, of a store that is not a folder


@dataclass(frozen=True)
class _Range:
    """Neighbouring images of a pack."""

    uri: str
    offset: int
    size: int
    rows: tuple[int, ...]  # positions of its images in the request


class PackReader:
    """Reads images by the rows of `PackedRows`.

    Args:
        store: that has the packs.
    """

    def __init__(self, store: Store) -> None:
        self._shard_store = ShardStore(store, STAGE)
        self._markers: dict[str, Marker] = {}  # by key
        is_folder = "://" not in store.url
        self._pool = None if is_folder else ThreadPoolExecutor(REQUESTS)

    def fetch(self, rows: pa.Table) -> list[bytes]:
        """Return the images of some rows.

        Raises:
            DataError: a pack is missing, or has other bytes than were packed.
            StorageError: the store refused.
        """
        uris, offsets, sizes = (rows[name].to_pylist() for name in ("uri", "offset", "size"))
        digests = rows["sha256"].to_pylist()
        images = [b""] * len(uris)
        ranges = list(_ranges(uris, offsets, sizes))
        read = map if self._pool is None else self._pool.map
        for each, data in zip(ranges, read(self._read, ranges), strict=True):
            for row in each.rows:
                start = offsets[row] - each.offset
                images[row] = data[start : start + sizes[row]]
                if sha256(images[row]) != digests[row]:
                    raise self._damaged(each.uri, offsets[row])
        return images

    def where(self, uri: str, offset: int) -> str:
        """Return the place of an image, for messages."""
        return f"{self._shard_store.store.uri(f'{STAGE}/data')}: {uri} at byte {offset}"

    def _read(self, each: _Range) -> bytes:
        info = self._info(each.uri)
        try:
            return self._shard_store.store.read_range(info.path, each.offset, each.size)
        except DataError:
            key = each.uri.partition(".")[0]
            raise DataError(
                f"{self._shard_store.store.uri(info.path)}: no such pack, but a marker lists it. "
                f"Delete {self._shard_store.uri(key)} and run `distill resume`, which packs its "
                "images again."
            ) from None

    def _info(self, uri: str) -> FileInfo:
        """Return the file that a name in rows stands for."""
        key, _, suffix = uri.partition(".")
        if key not in self._markers:
            marker = self._shard_store.marker(key)
            if marker is None:
                raise DataError(
                    f"{self._shard_store.uri(key)}: no such marker, so its images are not packed. "
                    "Run `distill resume`, which packs them."
                )
            self._markers[key] = marker
        return self._markers[key].file(suffix)

    def _damaged(self, uri: str, offset: int) -> DataError:
        key = uri.partition(".")[0]
        return DataError(
            f"{self._shard_store.store.uri(self._info(uri).path)}: the image at byte {offset} is "
            f"not the one that was packed. Delete {self._shard_store.uri(key)} and run "
            "`distill resume`, which packs its images again."
        )


def _ranges(uris: Sequence[str], offsets: Sequence[int], sizes: Sequence[int]) -> Iterator[_Range]:
    """Yield the images of a request, consecutive ones that are neighbours in a pack together."""
    rows, end = list[int](), -1
    for row, (uri, offset, size) in enumerate(zip(uris, offsets, sizes, strict=True)):
        follows = bool(rows) and uri == uris[rows[0]] and offset == end
        if rows and not (follows and offset + size - offsets[rows[0]] <= RANGE_BYTES):
            yield _Range(uris[rows[0]], offsets[rows[0]], end - offsets[rows[0]], tuple(rows))
            rows = []
        rows.append(row)
        end = offset + size
    if rows:
        yield _Range(uris[rows[0]], offsets[rows[0]], end - offsets[rows[0]], tuple(rows))
