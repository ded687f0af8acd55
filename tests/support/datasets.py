"""Small datasets for the tests of reading."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from distill_core.config.data import DataConfig

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def data_config(path: Path | str | None, **changes: Any) -> DataConfig:
    """Return the configuration of a dataset of two classes and 8 x 8 pixels."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "format": "imagefolder",
        "path": None if path is None else str(path),
        "num_classes": 2,
        "side": 8,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    return DataConfig(**settings | changes)


def picture(value: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """Return a noisy RGB image that differs by value."""
    rng = np.random.default_rng(value)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(value: int) -> bytes:
    """Return a PNG file that differs by value."""
    return encoded(picture(value))


def image_folder(root: Path) -> Path:
    """Write cats 0 to 2 and dogs 10 to 12 to train on, 20 and 30 to test on; return the folder."""
    for split, wnid, values in (
        ("train", "cat", (0, 1, 2)),
        ("train", "dog", (10, 11, 12)),
        ("test", "cat", (20,)),
        ("test", "dog", (30,)),
    ):
        (root / split / wnid).mkdir(parents=True, exist_ok=True)
        for value in values:
            (root / split / wnid / f"{value}.png").write_bytes(png(value))
    return root


def write_parquet(
    path: Path,
    rows: Sequence[tuple[bytes | None, int | None]],
    *,
    names: Sequence[str] | None = None,
    paths: Sequence[str] | None = None,
    row_group_size: int = 2,
) -> Path:
    """Write (image file, label) rows as Hugging Face does; return the path."""
    given = iter(paths or ())
    images = [{"bytes": data, "path": next(given, None)} for data, _ in rows]
    columns = {
        "image": pa.array(images, IMAGE),
        "label": pa.array([label for _, label in rows], pa.int64()),
    }
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size, write_page_checksum=True)
    return path
