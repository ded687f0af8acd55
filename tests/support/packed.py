"""Datasets with packs, for the tests of packs."""

from __future__ import annotations

from distill_core.config.data import DataConfig
from distill_core.config.packs import PackConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import ingest
from distill_core.data.packing.build import pack_dataset, source_config
from distill_core.storage.store import Store

ORIGINAL = PackConfig(encoding="original", pack_bytes=1024)


def packed(config: DataConfig, store: Store) -> tuple[DataConfig, DatasetIndex]:
    """Ingest and pack a dataset; return its config with packs, and its index."""
    index = ingest(source_config(config), store)
    pack_dataset(config, index, store)
    return config, index
