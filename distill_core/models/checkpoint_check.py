"""A check of a teacher's file that reads its header only, before any expensive work.

A header describes every tensor, also that of a torch checkpoint, unless it is of the format before
zip files.
"""

from __future__ import annotations

import io
import json
from typing import Any

from distill_core.config.training import ModelConfig
from distill_core.errors import DataError
from distill_core.models.fitting import Shape, check_shapes
from distill_core.models.state_dicts import check_tensors, choose_entry
from distill_core.models.unpickling import BEGINNING, ZIP_MAGIC, check_kind, read_checkpoint
from distill_core.storage.digest import file_size, read_range
from distill_core.storage.filesystems import open_filesystem

LENGTH_BYTES = 8  # little-endian length of the header, at the start of a safetensors file
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
OLD_MAGIC = b"\x80"  # of a pickle, the format of torch.save before zip files


def check_checkpoint(
    url: str, config: ModelConfig, *, num_classes: int, entry: str | None = None
) -> None:
    """Check that a file can be the weights of a network, as far as its header tells.

    Args:
        url: path or fsspec URL of a safetensors file or a torch checkpoint.
        config: the network that the file must contain.
        num_classes: of its head.
        entry: path of the state dict in a checkpoint; None: the only one, or the usual one.

    Raises:
        ConfigError: no such file, or its header describes another network or class count.
        DataError: it is neither of the two formats, or it is incomplete.
    """
    size = file_size(url)
    start = b"" if size == 0 else read_range(url, 0, BEGINNING)
    check_kind(start, where=url)
    if url.endswith(".safetensors"):
        shapes: dict[str, Shape] | None = _header_shapes(url, size)
    elif start.startswith(ZIP_MAGIC):
        shapes = _stored_shapes(url, entry)
    elif start.startswith(OLD_MAGIC):
        return  # one pickle with everything in it, which only the import reads
    else:
        raise DataError(
            f"{url}: not a torch checkpoint{_bytes(size)}, expected a file of torch.save, or one "
            "of safetensors named NAME.safetensors. Save model.state_dict()."
        )
    if shapes is not None:
        check_shapes(shapes, config, num_classes=num_classes, where=url)


def _stored_shapes(url: str, entry: str | None) -> dict[str, Shape] | None:
    """Return the shape of every tensor of a torch checkpoint by its name in the file.

    Returns:
        None: its server knows no ranges of bytes, so that only the import can read it.

    Raises:
        DataError: it is incomplete, or holds no state dict, or several to choose from.
    """
    fs, path = open_filesystem(url)
    try:
        file = fs.open(path, "rb")
        file.seek(0, io.SEEK_END)
    except (OSError, ValueError):
        return None
    with file:
        loaded = read_checkpoint(file, where=url, shapes_only=True)
    state, _, _ = choose_entry(loaded, entry, where=url)
    return {name: tuple(tensor.shape) for name, tensor in check_tensors(state, where=url).items()}


def _header_shapes(url: str, size: int | None) -> dict[str, Shape]:
    """Return the shape of every tensor of a safetensors file by its name in the file."""
    length = 0
    if size is None or size > LENGTH_BYTES:
        length = int.from_bytes(read_range(url, 0, LENGTH_BYTES), "little")
    start = LENGTH_BYTES + length  # of the tensors
    if not 0 < length <= MAX_HEADER or (size is not None and start > size):
        raise _incomplete(url, size, "its header has no plausible length")
    try:
        header = json.loads(read_range(url, LENGTH_BYTES, start))
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        shapes = {name: _shape(value) for name, value in tensors.items()}
        end = max((int(value["data_offsets"][1]) for value in tensors.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise _incomplete(url, size, "its header is not a list of tensors") from None
    if size is not None and start + end != size:
        raise _incomplete(url, size, f"its header describes {start + end}")
    return shapes


def _shape(value: Any) -> Shape:
    return tuple(int(length) for length in value["shape"])


def _incomplete(url: str, size: int | None, reason: str) -> DataError:
    return DataError(
        f"{url}: not a complete safetensors file{_bytes(size)}: {reason}. Copy the file again."
    )


def _bytes(size: int | None) -> str:
    return "" if size is None else f" ({size:,} bytes)"
