"""The shapes of the tensors in a torch checkpoint, from its header and without its tensors.

A checkpoint is a zip file. One member is a pickle with the names and shapes; the tensors are other
members, which are not read. Nothing in the pickle is executed: everything but tensors and plain
containers becomes an inert object.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

Shape = tuple[int, ...]

MAX_HEADER = 100_000_000  # bytes
HEADER = "/data.pkl"
MAX_DEPTH = 3  # of entries in entries, and of prefixes
UNREADABLE = (
    *(pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(MemoryError, OverflowError, RecursionError, RuntimeError, NotImplementedError),
)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of which only the shape was read."""

    shape: Shape


class Inert:
    """An object of a class that is not needed; it accepts whatever a pickle does with it."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None:
        """Ignore an element."""

    def extend(self, values: object) -> None:
        """Ignore some elements."""

    def add(self, value: object) -> None:
        """Ignore an element."""


def read_header(file: IO[bytes]) -> Any:
    """Return what a checkpoint holds, with `StoredTensor` in the place of tensors.

    Args:
        file: a file that can seek.

    Returns:
        None: the header cannot be read, though the file is whole. Reading the weights explains it.

    Raises:
        zipfile.BadZipFile: the file is not a whole zip file.
    """
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith(HEADER) and member.file_size <= MAX_HEADER:
                with archive.open(member) as header:
                    return _load(header)
    return None


def head_rows(loaded: Any, name: str) -> int | None:
    """Return the number of outputs of a layer; None if the checkpoint does not show it.

    Args:
        loaded: of `read_header`; the weights may lie in any entry and have prefixes of wrappers.
        name: of the layer's weight in the network.
    """
    rows = {
        tensor.shape[0]
        for key, tensor in _tensors(loaded, MAX_DEPTH)
        if len(tensor.shape) == 2 and _is_named(key, name)
    }
    return rows.pop() if len(rows) == 1 else None


def _tensors(loaded: Any, depth: int) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the names and tensors of every entry down to a depth."""
    for key, value in loaded.items() if isinstance(loaded, Mapping) else ():
        if isinstance(value, StoredTensor):
            yield str(key), value
        elif depth > 0:
            yield from _tensors(value, depth - 1)


def _is_named(key: str, name: str) -> bool:
    """Return whether a tensor has a name, alone or after prefixes that wrappers add."""
    prefix = key.removesuffix(name)
    parts = prefix.rstrip(".").split(".")
    wrapped = prefix.endswith(".") and len(parts) < MAX_DEPTH
    return key == name or (key.endswith(name) and wrapped and not any(p.isdigit() for p in parts))


class _HeaderUnpickler(pickle.Unpickler):
    """Builds tensors without storage, plain containers, and inert objects for all else."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3":
                return _tensor
            case "torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state":
                return _parameter
            case "collections", "OrderedDict":
                return OrderedDict
            case _:
                return Inert

    def persistent_load(self, pid: Any) -> None:
        """Return nothing for the storage of a tensor."""


def _load(header: IO[bytes]) -> Any:
    try:
        return _HeaderUnpickler(header).load()
    except UNREADABLE:
        return None


def _tensor(storage: object, offset: int, size: Shape, *rest: object) -> StoredTensor:
    return StoredTensor(tuple(int(length) for length in size))


def _parameter(data: object, *rest: object) -> object:
    return data
