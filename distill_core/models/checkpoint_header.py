"""The shapes of the tensors in a torch checkpoint, from its header and without its tensors.

A checkpoint is a zip file. One member is a pickle with the names and shapes; the tensors are other
members, which are not read. Nothing in the pickle is executed: everything but tensors and plain
containers becomes an inert object.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

Shape = tuple[int, ...]

MAX_HEADER = 100_000_000  # bytes
HEADER = "/data.pkl"
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


def head_rows(loaded: Any, name: str, *, wrappers: tuple[str, ...]) -> int | None:
    """Return the number of outputs of a layer; None if the checkpoint does not show it.

    Args:
        loaded: of `read_header`.
        name: of the layer's weight in the network.
        wrappers: keys under which trainers keep the state dict.
    """
    while wrapper := next((key for key in wrappers if _holds_mapping(loaded, key)), None):
        loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        return None
    tensors = {key: value for key, value in loaded.items() if isinstance(value, StoredTensor)}
    shapes = [t.shape for key, t in tensors.items() if key == name or key.endswith(f".{name}")]
    return shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == 2 else None


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


def _holds_mapping(loaded: Any, key: str) -> bool:
    return isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping)
