"""Images of the report: a grid of classes x images per class, and the evolution of a few images.

S is the side of an image in pixels. `distill_core.storage.image_shards` decodes the pixels.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Picture

from distill_core.label_spaces.words import ClassWords
from distill_core.storage.image_shards import ImageRows, decode_images
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from flows.reports.charts import Image
from flows.reports.report_data import ReportData, spread
from tasks.stages.names import StageId

CLASSES, COLUMNS, BLOCKS = 24, 10, 4  # at most, so that the report stays small
LOSSLESS_SIDE = 64  # larger images are shown as JPEG
SHOWN_SIDE = 112  # and scaled down to this


@dataclass(frozen=True)
class GridRow:
    """The images of one class, side by side in one picture."""

    title: str  # of the class
    count: int
    strip: Image


@dataclass(frozen=True)
class Snapshot:
    """One image at one step of its optimisation."""

    step: int
    low: float  # lower bound of the crop area at that step
    image: Image


@dataclass(frozen=True)
class Evolution:
    """The snapshots of one image."""

    title: str  # of its class
    ipc_index: int
    snapshots: tuple[Snapshot, ...]


def grid(data: ReportData) -> list[GridRow]:
    """Return up to 24 classes, evenly spaced, with up to 10 images each.

    Only the image shards that hold them are read: those of a few blocks of classes, with the lowest
    image indices.
    """
    shard_store = ShardStore(data.run.store, "recover")
    blocks = _blocks(data.markers.get(StageId("recover"), ()))
    chosen = spread(list(blocks), BLOCKS)
    rows: list[GridRow] = []
    for name in chosen:
        shards = [decode_images(shard_store.load(marker, "parquet")) for marker in blocks[name]]
        rows.extend(_rows(shards, data.names, limit=CLASSES // len(chosen)))
    return rows


def evolutions(
    traces: Iterable[Mapping[str, Any]], names: ClassWords, *, limit: int = 4
) -> list[Evolution]:
    """Return the snapshots of the first `limit` image shards that have any."""
    result = []
    for trace in traces:
        shots = tuple(
            Snapshot(shot["step"], shot["low"], _shown(base64.b64decode(shot["png"])))
            for shot in trace["snapshots"]
        )
        if shots:
            first = trace["snapshots"][0]
            result.append(Evolution(names.title(first["wnid"]), first["ipc_index"], shots))
    return result[:limit]


def _blocks(markers: Sequence[Marker]) -> dict[str, list[Marker]]:
    """Group image shards by their block of classes, without those beyond the last column."""
    blocks: dict[str, list[Marker]] = {}
    for marker in markers:
        block, _, indices = marker.shard.partition("_")
        first = re.match(r"i(\d+)", indices)
        if first is None or int(first[1]) < COLUMNS:
            blocks.setdefault(block, []).append(marker)
    return blocks


def _rows(shards: Sequence[ImageRows], names: ClassWords, *, limit: int) -> list[GridRow]:
    by_class: dict[str, list[tuple[int, np.ndarray]]] = {}
    for shard in shards:
        for image, pixels in zip(shard.images, shard.pixels, strict=True):
            by_class.setdefault(image.wnid, []).append((image.ipc_index, pixels))
    rows = []
    for wnid in spread(list(by_class), limit):
        ordered = sorted(by_class[wnid], key=lambda pair: pair[0])[:COLUMNS]
        row = strip([pixels for _, pixels in ordered])
        rows.append(GridRow(names.title(wnid), len(ordered), row))
    return rows


def strip(images: Sequence[np.ndarray]) -> Image:
    """Return (3, S, S) uint8 images side by side in one picture, one pixel apart."""
    gap = np.zeros((3, images[0].shape[1], 1), np.uint8)
    parts = [part for pixels in images for part in (pixels, gap)][:-1]
    joined = np.concatenate(parts, axis=2).transpose(1, 2, 0)
    return _encode(Picture.fromarray(np.ascontiguousarray(joined)))


def _shown(png: bytes) -> Image:
    with Picture.open(io.BytesIO(png)) as picture:
        return _encode(picture.convert("RGB"))


def _encode(picture: Picture.Image) -> Image:
    """Encode a small picture without loss; scale a large one down and compress it."""
    stream = io.BytesIO()
    if picture.height <= LOSSLESS_SIDE:
        picture.save(stream, "PNG")
        return Image("image/png", stream.getvalue())
    width = round(picture.width * min(1.0, SHOWN_SIDE / picture.height))
    picture.resize((width, min(SHOWN_SIDE, picture.height))).save(stream, "JPEG", quality=88)
    return Image("image/jpeg", stream.getvalue())
