"""The encoded images of some rows of the index, wherever their bytes are."""

from __future__ import annotations

from functools import cached_property

import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.data.archives import Archives
from distill_core.data.packs.cache_settings import open_cache
from distill_core.data.packs.reading import PackReader
from distill_core.data.readers.compression import is_compressed
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Address, Reader
from distill_core.errors import DataError
from distill_core.storage.store import Store

ADDRESS = ("uri", "offset", "size", "sha256", "version")  # columns that address an image


class EncodedImages:
    """Reads images of a dataset from its files, and those of compressed archives from the store.

    With packs, all images are read from them, by the rows of `packs.addresses.PackedRows`.

    Args:
        config: of the dataset.
        store: address of the store of its index; None: it has none.
    """

    def __init__(self, config: DataConfig, store: str | None) -> None:
        self.config, self._store = config, store

    def fetch(self, rows: pa.Table) -> list[bytes]:
        """Return the images of some rows, with the columns of `ADDRESS`.

        Raises:
            DataError: an image is missing.
        """
        if self._packs is not None:
            return self._packs.fetch(rows)
        columns = (rows[name].to_pylist() for name in ("uri", "offset", "size"))
        addresses = list(map(Address, *columns))
        if not any(is_compressed(address.uri) for address in addresses):
            return self._reader.fetch(addresses)
        parts = rows["version"].to_pylist()
        return [
            self._unpacked(address, part)
            if is_compressed(address.uri)
            else self._reader.fetch([address])[0]
            for address, part in zip(addresses, parts, strict=True)
        ]

    def where(self, rows: pa.Table, number: int) -> str:
        """Return the place of the image of a row, for messages."""
        address = Address(*(rows[name][number].as_py() for name in ("uri", "offset", "size")))
        if self._packs is not None:
            return self._packs.where(address.uri, address.offset)
        return f"{self.config.path or self.config.format}: {address.text}"

    def _unpacked(self, address: Address, part: str) -> bytes:
        where = f"{self.config.path}: {address.text}"
        if self._archives is None:
            raise DataError(f"{where}: its index is in no store. Ingest the dataset.")
        return self._archives.read(part, address.offset, address.size, where=where)

    @cached_property
    def _packs(self) -> PackReader | None:
        if self.config.pack is None or self._store is None:
            return None
        store = Store(self._store)
        return PackReader(store, open_cache(store.url))

    @cached_property
    def _archives(self) -> Archives | None:
        return None if self._store is None else Archives(Store(self._store))

    @cached_property
    def _reader(self) -> Reader:
        return open_reader(self.config)
