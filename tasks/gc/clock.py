"""The clock of a store: what its listings would give as the time of a write made now."""

from __future__ import annotations

from datetime import datetime

from distill_core.errors import ConfigError, StorageError
from distill_core.storage.shard_store import new_token
from distill_core.storage.store import PROBES, Store


def store_time(store: Store) -> datetime:
    """Write a probe, return its time of modification in UTC, and delete it again.

    The age of objects is measured by this clock, so that a wrong clock of the machine that runs
    the collection has no effect.

    Raises:
        ConfigError: the folder of probes is a symbolic link out of the store.
        StorageError: the store cannot be written, or does not list what was written.
    """
    path = f"{PROBES}/{new_token()}"
    if any(not file.regular and file.path == PROBES for file in store.files(PROBES)):
        raise ConfigError(
            f"{store.uri(PROBES)}: a symbolic link, expected a folder in which the store's clock "
            "can be read. Delete the link."
        )
    store.put(path, b"probe")
    try:
        times = [file.modified for file in store.files(PROBES) if file.path == path]
    finally:
        store.delete(path)
    if not times:
        raise StorageError(
            f"{store.uri(path)}: written, but not listed, so the age of objects is not known and "
            "nothing is removed. Check the address of the store, then run again."
        )
    return times[0]
