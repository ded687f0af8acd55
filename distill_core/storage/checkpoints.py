"""Checkpoints of long jobs. They are advisory: a lost one costs time, never correctness.

An execution writes ``<stage>/checkpoints/<key>-<token>/step-000012.safetensors`` under its own
token, then ``pointer.json``, and keeps the last two. It reads those of all executions and uses the
furthest one that is undamaged. Inside an epoch the name is ``step-000012-000340.safetensors``: 340
batches after 12 epochs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from distill_core.errors import DataError, StorageError
from distill_core.progress import Notice, ignore_notice
from distill_core.storage.digest import sha256
from distill_core.storage.object_names import POINTER, checkpoint_attempt, is_checkpoint_file
from distill_core.storage.store import Store


@dataclass(frozen=True)
class Pointer:
    """A complete checkpoint of one execution."""

    step: int
    file: str
    sha256: str
    batches: int = 0  # after so many steps; older versions pass over a pointer that has any

    @property
    def tree(self) -> dict[str, Any]:
        """Return what is stored."""
        return {name: value for name, value in asdict(self).items() if name != "batches" or value}


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one key, written by one execution."""

    store: Store
    stage: str
    key: str
    token: str  # of this execution
    # Receives a sentence about each checkpoint that cannot be used.
    notice: Notice = field(default=ignore_notice, compare=False)

    def save(self, step: int, payload: bytes, *, batches: int = 0) -> None:
        """Store the state after `step` steps; keep the one before it and delete older ones.

        Args:
            step: whole epochs.
            payload: the state.
            batches: of the epoch after those.

        Raises:
            StorageError: the store refused; the checkpoints before are kept.
        """
        place = f"step-{step:06d}" + (f"-{batches:06d}" if batches else "")
        folder, file = self._own_folder, f"{place}.safetensors"
        newest = Pointer(step, file, sha256(payload), batches)
        before = [each for each in self._pointers(folder) if each.file != file][:1]
        tree = {**newest.tree, **({"before": before[0].tree} if before else {})}
        self.store.put(f"{folder}/{file}", payload)
        self.store.put(f"{folder}/{POINTER}", json.dumps(tree).encode())
        kept = {POINTER, file, *(each.file for each in before)}
        for name in self.store.names(folder):
            if is_checkpoint_file(name) and name not in kept:
                self.store.delete(f"{folder}/{name}")

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield (step, payload) of the undamaged checkpoints of all executions, furthest first.

        Raises:
            StorageError: the store does not answer. If only one object cannot be read, the one
                before it is yielded.
        """
        found = [
            (pointer, folder) for folder in self._folders() for pointer in self._pointers(folder)
        ]
        furthest = sorted(found, key=lambda pair: (pair[0].step, pair[0].batches), reverse=True)
        for pointer, folder in furthest:
            payload = self._read(pointer, folder)
            if payload is not None:
                yield pointer.step, payload

    def clear(self) -> None:
        """Delete the checkpoints of every execution, after the result is committed.

        Files of other names are not ours and stay, as does everything behind a symbolic link.
        """
        for folder in self._folders():
            if checkpoint_attempt(folder.rpartition("/")[2]) is not None:
                self._clear(folder)

    def clear_own(self) -> None:
        """Delete the checkpoints of this execution, since another one has committed the result."""
        self._clear(self._own_folder)

    def _clear(self, folder: str) -> None:
        # The pointer is deleted first, so an interrupted clear leaves no pointer.
        names = filter(is_checkpoint_file, self.store.names(folder))
        for name in sorted(names, key=lambda name: name != POINTER):
            self.store.delete_unlinked(f"{folder}/{name}")

    @property
    def _own_folder(self) -> str:
        return self._folder(f"{self.key}-{self.token}")

    def _folder(self, name: str) -> str:
        return f"{self.stage}/checkpoints/{name}"

    def _folders(self) -> list[str]:
        names = self.store.folders(f"{self.stage}/checkpoints")
        return [self._folder(name) for name in names if name.startswith(f"{self.key}-")]

    def _pointers(self, folder: str) -> tuple[Pointer, ...]:
        """Return the checkpoints of one execution, the newest first; none without a pointer."""
        path = f"{folder}/{POINTER}"
        try:
            tree = json.loads(self.store.read(path))
            before = tree.pop("before", None)
            return tuple(Pointer(**each) for each in (tree, before) if each is not None)
        except DataError:
            return ()  # deleted: its result is committed
        except StorageError as error:
            self.store.names(folder)  # raises if the store is away, rather than this object
            self._skip(path, str(error))
            return ()
        except (ValueError, TypeError, AttributeError):
            self._skip(path, "it is not the pointer of a checkpoint")
            return ()

    def _read(self, pointer: Pointer, folder: str) -> bytes | None:
        """Return the bytes of a checkpoint, or None if they are damaged or gone."""
        path = f"{folder}/{pointer.file}"
        try:
            payload = self.store.read(path)
        except DataError:
            if pointer in self._pointers(folder):  # else its execution has replaced it meanwhile
                self._skip(path, "no such object, though its pointer names it")
            return None
        except StorageError as error:
            self.store.names(folder)  # raises if the store is away, rather than this object
            self._skip(path, str(error))
            return None
        if (digest := sha256(payload)) == pointer.sha256:
            return payload
        self._skip(path, f"sha256 {digest[:12]}, expected {pointer.sha256[:12]}, so it is damaged")
        return None

    def _skip(self, path: str, problem: str) -> None:
        self.notice(
            f"{self.store.uri(path)}: the checkpoint cannot be used ({problem}). Training goes on "
            "from the one before it."
        )
