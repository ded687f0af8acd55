"""Encoded images from packs, each compared with the digest in its row.

Packs of a store that is not a folder may be kept on a local disk, see `cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from distill_core.data.files.ranges import Span, merged
from distill_core.data.packs.addresses import file_of
from distill_core.data.packs.blocks import STAGE
from distill_core.data.packs.cache import PackCache
from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store

REQUESTS = 8  # at a time, of a store that is not a folder


@dataclass(frozen=True)
class _Image:
    """An image in a request."""

    uri: str  # path of its pack in the store
    offset: int
    size: int
    sha256: str
    version: str  # of the row; see `addresses.file_of`


class PackReader:
    """Reads images by the rows of `PackedRows`.

    Args:
        store: that has the packs.
        cache: of packs on this machine; None: there is none.
    """

    def __init__(self, store: Store, cache: PackCache | None = None) -> None:
        self._shard_store, self._cache = ShardStore(store, STAGE), cache
        is_folder = "://" not in store.url
        self._pool = None if is_folder else ThreadPoolExecutor(REQUESTS)

    def fetch(self, rows: pa.Table) -> list[bytes]:
        """Return the images of some rows.

        Raises:
            DataError: a pack is missing, or has other bytes than were packed.
            StorageError: the store refused.
        """
        names = ("uri", "offset", "size", "sha256", "version")
        columns = (rows[name].to_pylist() for name in names)
        images = [_Image(*each) for each in zip(*columns, strict=True)]
        spans = merged([(image.uri, image.offset, image.size) for image in images], gap=0)
        together = [[images[place] for place in span.places] for span in spans]
        read = map if self._pool is None else self._pool.map
        found = [b""] * len(images)
        for span, some in zip(spans, read(self._read, spans, together), strict=True):
            for place, data in zip(span.places, some, strict=True):
                found[place] = data
        return found

    def where(self, uri: str, offset: int) -> str:
        """Return the place of an image, for messages."""
        return f"{self._shard_store.store.uri(uri)} at byte {offset}"

    def _read(self, span: Span, images: Sequence[_Image]) -> list[bytes]:
        """Return neighbouring images of a pack, from this machine or else from the store."""
        place = (span.first, span.size)
        info, is_kept = file_of(span.path, images[0].version)
        if self._cache is not None:
            load = partial(self._from_store, span.path) if is_kept else None
            data = self._cache.read(info, *place, load=load)
            if data is not None:
                found = _cut(data, span, images)
                if _damaged(found, images) is None:
                    return found
                self._cache.drop(info)
        found = _cut(self._from_store(span.path, *place), span, images)
        if (damaged := _damaged(found, images)) is not None:
            raise self._damage(damaged)
        return found

    def _from_store(self, uri: str, offset: int, size: int) -> bytes:
        try:
            return self._shard_store.store.read_range(uri, offset, size)
        except DataError:
            raise DataError(
                f"{self._shard_store.store.uri(uri)}: no such pack, but a marker lists it. "
                f"Delete {self._shard_store.uri(_key(uri))} and run `distill resume`, which packs "
                "its images again."
            ) from None

    def _damage(self, image: _Image) -> DataError:
        return DataError(
            f"{self._shard_store.store.uri(image.uri)}: the image at byte {image.offset} is not "
            f"the one that was packed. Delete {self._shard_store.uri(_key(image.uri))} and run "
            "`distill resume`, which packs its images again."
        )


def _key(uri: str) -> str:
    """Return the key of the shard of a pack."""
    return uri.rpartition("/")[2].partition("-")[0]


def _cut(data: bytes, span: Span, images: Sequence[_Image]) -> list[bytes]:
    """Return the images in the bytes of a range."""
    starts = [image.offset - span.first for image in images]
    return [data[n : n + image.size] for n, image in zip(starts, images, strict=True)]


def _damaged(found: Sequence[bytes], images: Sequence[_Image]) -> _Image | None:
    """Return the first image whose bytes are not those that were packed."""
    pairs = zip(found, images, strict=True)
    return next((image for data, image in pairs if sha256(data) != image.sha256), None)
