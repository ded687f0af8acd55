"""Label shards of random labels, and how two of them are compared."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from distill_core.sharding import ImageId
from distill_core.storage import label_schema
from distill_core.storage.label_rows import Affine
from distill_core.storage.label_shards import LabelRows

LAST_LABEL = 21840  # ImageNet-21K


def some_images(count: int, *, seed: int = 0) -> tuple[ImageId, ...]:
    """Return images in no particular order; the largest label is among them."""
    labels = np.random.default_rng(seed).permutation(LAST_LABEL)[: count - 1].tolist()
    names = [LAST_LABEL, *labels]
    return tuple(ImageId(n, f"n{n:08d}", position % 3) for position, n in enumerate(names))


def shard(
    *, views: range, count: int, width: int, mix: str, scheme: str, seed: int = 0
) -> LabelRows:
    """Return random labels; what the mix does not use is neutral."""
    rng, shape = np.random.default_rng(seed), (len(views), count)
    columns = label_schema.MIX_COLUMNS[mix]

    def if_used(column: str, drawn: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        return drawn if column in columns else neutral

    values = {
        "features": rng.integers(0, 256, (*shape, width), np.uint8),
        "logits": rng.normal(0, 9, (*shape, width)).astype(np.float16),
        "topk": rng.normal(0, 9, (*shape, width)).astype(np.float16),
        "online": None,
    }[scheme]
    affine = Affine(*rng.normal(size=(2, width)).astype(np.float32))
    own = np.tile(np.arange(count, dtype=np.int32), (shape[0], 1))
    return LabelRows(
        scheme=scheme,
        teacher="ab" * 32,
        images=some_images(count, seed=seed),
        views=views,
        boxes=rng.integers(0, 65536, (*shape, 4)).astype(np.int32),
        flips=rng.random(shape) < 0.5,
        mix_kind=mix,
        partners=if_used("partner_label", rng.integers(0, count, shape).astype(np.int32), own),
        lam=if_used("lam", rng.random(shape, np.float32), np.ones(shape, np.float32)),
        mix_boxes=if_used(
            "mix_box",
            rng.integers(0, 65536, (*shape, 4)).astype(np.int32),
            np.zeros((*shape, 4), np.int32),
        ),
        colours=if_used(
            "colour", rng.random((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
        ),
        values=values,
        affine=affine if scheme == "features" else None,
        ids=rng.integers(0, 65536, (*shape, width), np.uint16) if scheme == "topk" else None,
        rest=rng.normal(size=shape).astype(np.float16) if scheme == "topk" else None,
    )


def parts(rows: LabelRows) -> dict[str, Any]:
    """Return every field in a form that compares by content and dtype."""
    found: dict[str, Any] = {}
    for field in fields(rows):
        value = getattr(rows, field.name)
        pieces = (value.scale, value.offset) if isinstance(value, Affine) else (value,)
        found[field.name] = [
            (p.dtype, p.shape, p.tobytes()) if isinstance(p, np.ndarray) else p for p in pieces
        ]
    return found


def opened(data: bytes) -> pq.ParquetFile:
    """Open a shard with plain pyarrow."""
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
