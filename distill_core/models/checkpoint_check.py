"""A check of a teacher's file that reads its header only, before any expensive work.

A header of safetensors describes every tensor. Of a torch checkpoint only the size of the head is
compared: its names may be those of another program, which the import translates.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any

from distill_core.config.training import ModelConfig
from distill_core.errors import DataError
from distill_core.models.build import head_name, skeleton
from distill_core.models.checkpoint_header import head_rows, read_header
from distill_core.models.importing import Shape, check_shapes, wrong_head
from distill_core.models.unpickling import check_kind
from distill_core.storage.digest import file_size, read_range
from distill_core.storage.filesystems import open_filesystem

LENGTH_BYTES = 8  # little-endian length of the header, at the start of a safetensors file
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
ZIP_MAGIC = b"PK\x03\x04"
TORCH_MAGIC = (ZIP_MAGIC, b"\x80")  # a zip file, or a pickle of the format before
START = 100  # bytes that tell files apart


def check_checkpoint(url: str, config: ModelConfig, *, num_classes: int) -> None:
    """Check that a file can be the weights of a network, as far as its header tells.

    Args:
        url: path or fsspec URL of a safetensors file or a torch checkpoint.
        config: the network that the file must contain.
        num_classes: of its head.

    Raises:
        ConfigError: no such file, or its header describes another network or class count.
        DataError: it is neither of the two formats, or it is incomplete.
    """
    size = file_size(url)
    start = b"" if size == 0 else read_range(url, 0, START)
    check_kind(start, where=url)
    if url.endswith(".safetensors"):
        shapes = _header_shapes(url, size)
        check_shapes(shapes, config, num_classes=num_classes, where=url)
    elif start.startswith(ZIP_MAGIC):
        _check_head(url, config, num_classes)
    elif not start.startswith(TORCH_MAGIC):
        raise DataError(
            f"{url}: not a torch checkpoint{_bytes(size)}, expected a file of torch.save, or one "
            "of safetensors named NAME.safetensors. Save model.state_dict()."
        )


def _check_head(url: str, config: ModelConfig, num_classes: int) -> None:
    """Check the number of classes of a torch checkpoint, if its header shows it."""
    fs, path = open_filesystem(url)
    try:
        with fs.open(path, "rb") as file:
            header = read_header(file)
    except (zipfile.BadZipFile, EOFError):
        raise DataError(
            f"{url}: not a complete torch checkpoint: its end is missing or damaged. Copy the file "
            "again."
        ) from None
    except (OSError, ValueError):  # a server that knows no ranges; the import reads the whole file
        return
    head = f"{head_name(skeleton(config, num_classes))}.weight"
    rows = head_rows(header, head)
    if rows is not None and rows != num_classes:
        raise wrong_head(head, rows, num_classes, where=url)


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
