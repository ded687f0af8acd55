"""Checkpoints of long jobs. They are advisory: a lost one costs time, never correctness.

An execution writes ``<stage>/checkpoints/<key>-<token>/step-000012.safetensors`` under its own
token, and ``pointer.json`` last. It reads those of all executions and uses the furthest valid one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.object_names import POINTER, checkpoint_attempt, is_checkpoint_file
from distill_core.storage.store import Store


@dataclass(frozen=True)
class Pointer:
    """The newest complete checkpoint of one execution."""

    step: int
    file: str
    sha256: str


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one key, written by one execution."""

    store: Store
    stage: str
    key: str
    token: str  # of this execution

    def save(self, step: int, payload: bytes) -> None:
        """Store the state after `step` steps and delete older ones of this execution."""
        folder, file = self._folder(f"{self.key}-{self.token}"), f"step-{step:06d}.safetensors"
        pointer = {"step": step, "file": file, "sha256": sha256(payload)}
        self.store.put(f"{folder}/{file}", payload)
        self.store.put(f"{folder}/{POINTER}", json.dumps(pointer).encode())
        for name in self.store.names(folder):
            if is_checkpoint_file(name) and name not in (file, POINTER):
                self.store.delete(f"{folder}/{name}")

    def latest(self) -> tuple[int, bytes] | None:
        """Return (step, payload) of the furthest valid checkpoint of any execution."""
        pointers = [
            (pointer, folder) for folder in self._folders() if (pointer := self._pointer(folder))
        ]
        for pointer, folder in sorted(pointers, key=lambda pair: pair[0].step, reverse=True):
            try:
                payload = self.store.read(f"{folder}/{pointer.file}")
            except DataError:
                continue  # another execution has replaced it since its pointer was read
            if sha256(payload) == pointer.sha256:
                return pointer.step, payload
        return None

    def clear(self) -> None:
        """Delete the checkpoints of every execution, after the result is committed.

        Files of other names are not ours and stay, as does everything behind a symbolic link.
        """
        for folder in self._folders():
            if checkpoint_attempt(folder.rpartition("/")[2]) is None:
                continue
            # The pointer is deleted first, so an interrupted clear leaves no pointer.
            names = filter(is_checkpoint_file, self.store.names(folder))
            for name in sorted(names, key=lambda name: name != POINTER):
                self.store.delete_unlinked(f"{folder}/{name}")

    def _folder(self, name: str) -> str:
        return f"{self.stage}/checkpoints/{name}"

    def _folders(self) -> list[str]:
        names = self.store.folders(f"{self.stage}/checkpoints")
        return [self._folder(name) for name in names if name.startswith(f"{self.key}-")]

    def _pointer(self, folder: str) -> Pointer | None:
        """Return the pointer of one execution, or None if it has no readable one."""
        try:
            return Pointer(**json.loads(self.store.read(f"{folder}/{POINTER}")))
        except (DataError, ValueError, TypeError):
            return None
