"""The file format of images: Parquet, readable by `datasets` and pyarrow, a row group per class.

Axes: N images of a shard, S side in pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from distill_core.errors import DataError
from distill_core.sharding import ImageId
from distill_core.storage.digest import sha256
from distill_core.storage.parquet import (
    column_values,
    open_parquet,
    pack_metadata,
    write_row_groups,
)

Encoding = Literal["png", "jpeg"]
LOSS_PREFIX = "loss_"
COLUMNS = ("image", "label", "wnid", "ipc_index", "sha256")
VERSION = 1

# JPEG 95 without chroma subsampling is the most lossy encoding on offer.
ENCODINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "png": ("png", {"format": "PNG"}),
    "jpeg": ("jpg", {"format": "JPEG", "quality": 95, "subsampling": 0}),
}

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True, eq=False)
class ImageRows:
    """The images of one shard."""

    images: tuple[ImageId, ...]  # N, those of a class adjacent
    pixels: np.ndarray  # (N, 3, S, S) uint8, in the order of `images`


def encode_images(
    rows: ImageRows, *, encoding: Encoding, losses: Mapping[str, np.ndarray]
) -> bytes:
    """Return an image shard as Parquet; the same rows give the same bytes.

    Args:
        rows: at least one image; images of a class stand together and become one row group.
        encoding: `png` keeps every pixel.
        losses: final (N,) losses by name, stored as ``loss_<name>``.

    Raises:
        DataError: the parts are of different lengths.
    """
    lengths = {"pixels": len(rows.pixels)} | {name: len(part) for name, part in losses.items()}
    if wrong := [name for name, length in lengths.items() if length != len(rows.images)]:
        raise DataError(
            f"image shard: {lengths[wrong[0]]} rows of {wrong[0]} for {len(rows.images)} images, "
            "expected one per image."
        )
    schema = _schema(encoding, sorted(losses))
    table = pa.table(_columns(rows, encoding, losses), schema=schema)
    # Images are compressed already; compressing them again only costs time.
    compression = {
        name: "none" if name.startswith("image.") else "zstd" for name in _leaves(schema)
    }
    # Statistics of images would store the smallest and largest one of a row group, twice.
    return write_row_groups(
        schema,
        _by_class(table, rows.images),
        compression=compression,
        use_dictionary=["label", "wnid"],
        write_statistics=["label", "wnid", "ipc_index"],
    )


def decode_images(data: bytes, *, where: str = "image shard") -> ImageRows:
    """Decode an image shard; every page and every image is verified.

    Raises:
        DataError: it is damaged, has another schema, or its images differ in size.
    """
    with open_parquet(data, where=where, columns=COLUMNS) as file:
        if (kind := file.schema_arrow.field("image").type) != IMAGE_TYPE:
            raise DataError(
                f"{where}: images are {kind}, expected {IMAGE_TYPE}. Use an image shard."
            )
        table = file.read(columns=list(COLUMNS))
    labels, indices = (column_values(table[name]).tolist() for name in ("label", "ipc_index"))
    wnids = table["wnid"].to_pylist()
    images = tuple(map(ImageId, labels, wnids, indices))
    pixels = [
        _checked(cell, digest, where=where)
        for cell, digest in zip(
            table["image"].to_pylist(), table["sha256"].to_pylist(), strict=True
        )
    ]
    if len(sizes := sorted({image.shape for image in pixels})) != 1:
        raise DataError(f"{where}: images of sizes {sizes}, expected one size. Recreate the shard.")
    return ImageRows(images, np.stack(pixels))


def encode_pixels(pixels: np.ndarray, encoding: Encoding) -> bytes:
    """Return (3, S, S) uint8 pixels as an image file."""
    stream = io.BytesIO()
    _, options = ENCODINGS[encoding]
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(stream, **options)
    return stream.getvalue()


def decode_pixels(data: bytes, *, where: str = "image") -> np.ndarray:
    """Return the pixels of an image file that `encode_pixels` wrote, (3, S, S) uint8.

    Raises:
        DataError: it is not an RGB image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{where}: {len(data)} bytes are not a complete image ({error}). Recreate the shard."
        ) from error
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"{where}: shape {pixels.shape}, expected (S, S, 3). Store RGB images.")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _columns(
    rows: ImageRows, encoding: Encoding, losses: Mapping[str, np.ndarray]
) -> dict[str, pa.Array]:
    suffix, _ = ENCODINGS[encoding]
    files = [encode_pixels(pixels, encoding) for pixels in rows.pixels]
    paths = [f"{image.wnid}/{image.ipc_index:05d}.{suffix}" for image in rows.images]
    columns = {
        "image": pa.StructArray.from_arrays(
            [pa.array(files, pa.binary()), pa.array(paths)], fields=list(IMAGE_TYPE)
        ),
        "label": pa.array([image.label for image in rows.images], pa.int64()),
        "wnid": pa.array([image.wnid for image in rows.images], pa.string()),
        "ipc_index": pa.array([image.ipc_index for image in rows.images], pa.int32()),
        "sha256": pa.array([sha256(file) for file in files]),
    }
    named = {LOSS_PREFIX + name: np.asarray(losses[name], np.float32) for name in sorted(losses)}
    return columns | {name: pa.array(values) for name, values in named.items()}


def _schema(encoding: Encoding, losses: list[str]) -> pa.Schema:
    types: dict[str, pa.DataType] = {
        "image": IMAGE_TYPE,
        "label": pa.int64(),
        "wnid": pa.string(),
        "ipc_index": pa.int32(),
        "sha256": pa.string(),
    } | {LOSS_PREFIX + name: pa.float32() for name in losses}
    features = {name: _feature(kind) for name, kind in types.items()}
    facts = {"kind": "images", "version": VERSION, "encoding": encoding}
    metadata = pack_metadata(
        facts, huggingface=json.dumps({"info": {"features": features}}, sort_keys=True)
    )
    return pa.schema([pa.field(name, kind) for name, kind in types.items()], metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Return the description of a column for Hugging Face `datasets`."""
    if kind == IMAGE_TYPE:
        return {"_type": "Image"}
    return {"_type": "Value", "dtype": {"float": "float32"}.get(str(kind), str(kind))}


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the Parquet column paths of a schema."""
    nested = [f"image.{field.name}" for field in IMAGE_TYPE]
    return nested + [name for name in schema.names if name != "image"]


def _by_class(table: pa.Table, images: tuple[ImageId, ...]) -> Iterator[pa.Table]:
    start = 0
    for _, group in groupby(images, key=attrgetter("label")):
        length = sum(1 for _ in group)
        yield table.slice(start, length)
        start += length


def _checked(cell: Mapping[str, Any], digest: str, *, where: str) -> np.ndarray:
    name = f"{where}: {cell['path']}"
    if sha256(cell["bytes"]) != digest:
        raise DataError(f"{name}: its bytes do not match its sha256 column. Recreate the shard.")
    return decode_pixels(cell["bytes"], where=name)
