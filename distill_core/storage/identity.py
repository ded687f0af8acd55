"""The identity of a store: an object at its root that proves that the folder or bucket is one.

Registering a run creates it. Commands that delete refuse a place without it, so that a mistyped
address costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, StringConstraints, TypeAdapter

from distill_core.storage.object_names import HEX
from distill_core.storage.records import parse_json, seal_json
from distill_core.storage.shard_store import new_token, utc_now
from distill_core.storage.store import Store

PATH = "distill-store.json"
REMEDY = "Check the address; if it is right, delete this object, and the next run creates it again."


@dataclass(frozen=True)
class Identity:
    """The identity of one store; copies of a store share it."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    id: Annotated[str, StringConstraints(pattern=f"^{HEX}$")]
    created: str  # ISO 8601, UTC, by the clock of the machine that created it
    format: Literal["distill-store"]
    version: Literal[1]
    record_sha256: str

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> Identity:
        """Parse a stored identity.

        Raises:
            DataError: it is damaged, of another version, or of another program.
        """
        return parse_json(
            _IDENTITY, data, where=where, what="the identity of a store", remedy=REMEDY
        )


_IDENTITY: TypeAdapter[Identity] = TypeAdapter(Identity)


def ensure_identity(store: Store, *, clock: Callable[[], datetime] = utc_now) -> Identity:
    """Return the identity of a store, created if there is none.

    Raises:
        DataError: what is stored is not the identity of a store.
        StorageError: the store cannot be read or written.
    """
    if not store.exists(PATH):
        created = clock().isoformat(timespec="seconds")
        facts = {"format": "distill-store", "version": 1, "id": new_token(), "created": created}
        store.create(PATH, seal_json(facts))
    return _load(store)


def find_identity(store: Store) -> Identity | None:
    """Return the identity of a store, or None if it has none.

    Raises:
        DataError: what is stored is not the identity of a store.
    """
    return _load(store) if store.exists(PATH) else None


def _load(store: Store) -> Identity:
    return Identity.from_json(store.read(PATH), where=store.uri(PATH))
