"""Checkpoints of long jobs, under the token of the attempt that wrote them.

``<stage>/checkpoints/<key>-<token>/step-000012.safetensors`` first, ``pointer.json`` last; a torn
pointer or a file that does not match it is passed over, so the next older attempt is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store

POINTER = "pointer.json"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Checkpoints of one key; this attempt writes under its own token."""

    store: Store
    stage: str
    key: str
    token: str

    def save(self, step: int, payload: bytes) -> None:
        """Store a checkpoint, point at it, then drop this attempt's older ones."""
        folder, name = self._folder(f"{self.key}-{self.token}"), f"step-{step:06d}.safetensors"
        self.store.put(f"{folder}/{name}", payload)
        pointer = {"step": step, "file": name, "sha256": sha256(payload)}
        self.store.put(f"{folder}/{POINTER}", json.dumps(pointer).encode())
        for old in self.store.names(folder):
            if old not in (name, POINTER):
                self.store.delete(f"{folder}/{old}")

    def latest(self) -> tuple[int, bytes] | None:
        """Return (step, payload) of the furthest valid checkpoint of any attempt."""
        pointers = sorted(self._pointers(), key=lambda found: found[1]["step"], reverse=True)
        for folder, pointer in pointers:
            try:
                payload = self.store.read(f"{folder}/{pointer['file']}")
            except DataError:
                continue
            if sha256(payload) == pointer["sha256"]:
                return int(pointer["step"]), payload
        return None

    def clear(self) -> None:
        """Remove every attempt's checkpoints, once the result is committed."""
        for folder in self._attempts():
            for name in self.store.names(folder):
                self.store.delete(f"{folder}/{name}")

    def _attempts(self) -> list[str]:
        names = self.store.folders(self._folder(""))
        return [self._folder(n) for n in names if n.startswith(f"{self.key}-")]

    def _pointers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for folder in self._attempts():
            try:
                pointer = json.loads(self.store.read(f"{folder}/{POINTER}"))
            except (DataError, ValueError):
                continue
            yield folder, pointer

    def _folder(self, name: str) -> str:
        return f"{self.stage}/checkpoints/{name}".rstrip("/")
