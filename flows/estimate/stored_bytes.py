"""Estimate of the bytes that a run stores, from stand-in shards and linear extrapolation.

File formats have overhead that a formula of pixels and classes misses: a footer per file, a header
per row group, a checksum per page. So the run's own writers write a few stand-in shards in memory,
and the size of a shard is extrapolated from them along its row groups and rows. Only the content of
the stand-ins is an assumption: optimised pixels and feature codes resemble noise; see `Content`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from distill_core.config.schema import RunConfig
from distill_core.recover.trace import SNAPSHOTS, traced_every
from distill_core.sharding import ClassShard, ImageId
from distill_core.storage.image_shards import Encoding, ImageRows, encode_images, encode_pixels
from distill_core.storage.label_rows import Affine
from distill_core.storage.label_shards import LabelRows, encode_labels

ROWS = 40  # images in the larger stand-in of a label shard
TERM_LOSSES = ("bn_statistics", "cross_entropy")  # stored with every image


@dataclass(frozen=True)
class Content:
    """Assumptions about content, measured on real runs (see docs/decisions/0014)."""

    pixel_spread: float = 70.0  # standard deviation of pixels in 0..255
    real_png: float = 0.75  # bytes of a small photograph as PNG, relative to noise
    # Of 8-bit features. Predicted / written: 0.97 for a ResNet on CIFAR-10, 1.14 for the network
    # of the rehearsal after one epoch.
    code_spread: float = 25.0


@dataclass(frozen=True)
class Shape:
    """The size of one class shard."""

    classes: int
    images: int
    batches: int


@dataclass(frozen=True)
class Label:
    """The format of one label."""

    scheme: str  # `auto` resolved
    width: int  # values, D, C or k
    mix: str
    side: int  # of the views, in pixels
    bits: int  # of a feature
    classes: int
    patches: int | None  # per side of the grid
    operations: int | None  # of RandAugment


Shapes = Counter[Shape]
CONTENT = Content()


def shapes_of(shards: Sequence[ClassShard]) -> Shapes:
    """Return the number of shards of each size."""
    sizes = ((len(s.classes), s.num_images, len(s.grids)) for s in shards)
    return Counter(Shape(*size) for size in sizes)


def image_bytes(config: RunConfig, shapes: Shapes, *, real: bool) -> int:
    """Return the bytes of all image shards of one set, loss curves included.

    Args:
        config: encoding, side, steps.
        shapes: of the plan's shards.
        real: whether these are real images, unchanged.
    """
    side, encoding = config.data.side, config.recover.encoding
    base = _image_shard(side, encoding, real, 1, 1)
    per_class = _image_shard(side, encoding, real, 2, 1) - base  # with its image
    per_image = _image_shard(side, encoding, real, 1, 2) - base
    steps, total = 0 if real else config.recover.steps, 0
    for shape, count in shapes.items():
        rows = (shape.classes - 1) * per_class + (shape.images - shape.classes) * per_image
        total += count * (base + rows + _trace(config, shape, steps=steps))
    return total


def label_bytes(config: RunConfig, shapes: Shapes, *, scheme: str, width: int) -> int:
    """Return the bytes of all label shards of one set.

    Args:
        config: views, mix and crop.
        shapes: of the plan's image shards.
        scheme: `auto` resolved; online labels store nothing.
        width: values per label, D, C or k.
    """
    if scheme == "online":
        return 0
    views, step = config.relabel.stored_views, config.relabel.views_per_shard
    files = Counter(min(step, views - start) for start in range(0, views, step))
    augment = config.relabel.rand_augment
    label = Label(
        scheme,
        width,
        mix=config.relabel.mix.kind,
        side=config.data.side,
        bits=config.relabel.bits,
        classes=config.data.num_classes,
        patches=config.relabel.patches,
        operations=None if augment is None else augment.operations,
    )
    total = 0.0
    for shape, shards in shapes.items():
        for count, each in files.items():
            total += shards * each * _label_shard(label, shape.images, count)
    return round(total)


def _label_shard(label: Label, images: int, views: int) -> float:
    """Return the bytes of one label shard."""
    few = min(images, ROWS // 2)
    single = _label_sample(label, few, 1)
    per_view = _label_sample(label, few, 2) - single
    if images > few:
        many = min(images, ROWS)
        larger = _label_sample(label, many, 2) - _label_sample(label, many, 1)
        head = single - per_view
        return head + views * (per_view + (images - few) * (larger - per_view) / (many - few))
    return single + (views - 1) * per_view


@lru_cache(maxsize=256)
def _image_shard(side: int, encoding: Encoding, real: bool, classes: int, each: int) -> int:
    """Return the bytes of a stand-in image shard."""
    images = _names(classes, each)
    pixels = _pixels(len(images), side, real=real)
    losses = {name: np.linspace(1, 2, len(images), dtype=np.float32) for name in TERM_LOSSES}
    return len(encode_images(ImageRows(images, pixels), encoding=encoding, losses=losses))


@lru_cache(maxsize=256)
def _label_sample(label: Label, images: int, views: int) -> int:
    """Return the bytes of a stand-in label shard."""
    rng, shape = np.random.default_rng(0), (views, images)
    boxes = rng.integers(0, label.side, (*shape, 4), dtype=np.int32)
    partners = np.tile(np.arange(images, dtype=np.int32), (views, 1))
    lam = np.ones(shape, np.float32)
    if label.mix in ("cutmix", "mixup"):
        partners, lam = rng.permuted(partners, axis=1), rng.random(shape).astype(np.float32)
    rows = LabelRows(
        scheme=label.scheme,
        teacher="0" * 64,
        images=_names(images, 1),
        views=tuple(range(views)),
        boxes=boxes,
        flips=rng.random(shape) < 0.5,
        mix_kind=label.mix,
        partners=partners,
        lam=lam,
        mix_boxes=rng.permuted(boxes, axis=1),
        colours=rng.random((*shape, 3)).astype(np.float32),
        **_values(rng, shape, label),
        **_drawn(rng, shape, label),
    )
    return len(encode_labels(rows))


def _values(rng: np.random.Generator, shape: tuple[int, int], label: Label) -> dict[str, Any]:
    """Return stand-ins for the outputs of a teacher as they are stored."""
    whole = (*shape, label.width)
    if label.scheme == "logits":
        return {"values": rng.normal(size=whole).astype(np.float16), "affine": None}
    if label.scheme == "topk":
        largest = np.sort(rng.normal(size=whole), axis=-1)[..., ::-1].astype(np.float16)
        ids = rng.integers(0, label.classes, whole, np.uint16)
        return {"values": largest, "ids": ids, "rest": largest[..., 0], "affine": None}
    codes = rng.normal(110, CONTENT.code_spread, whole).clip(0, 255)
    scale, offset = rng.normal(size=(2, label.width)).astype(np.float32)
    affine = Affine(scale, offset, label.bits)
    return {
        "values": nibbles(codes) if label.bits == 4 else codes.astype(np.uint8),
        "affine": affine,
    }


def nibbles(codes: np.ndarray) -> np.ndarray:
    """Return (V, N, D) stand-ins as codes of 4 bits; `label_encoding` in NumPy."""
    low, high = codes.min((0, 1)), codes.max((0, 1))
    levels = np.rint((codes - low) * (15 / np.maximum(high - low, 1))).astype(np.uint8)
    if levels.shape[-1] % 2:
        levels = np.concatenate([levels, np.zeros_like(levels[..., :1])], axis=-1)
    packed: np.ndarray = levels[..., ::2] | levels[..., 1::2] << 4
    return packed


def _drawn(rng: np.random.Generator, shape: tuple[int, int], label: Label) -> dict[str, Any]:
    """Return stand-ins for the random draws that only some configs have."""
    columns: dict[str, Any] = {}
    if label.patches is not None:
        columns["patches"] = rng.integers(0, label.patches, (*shape, 2, label.patches), np.uint8)
    if label.operations is not None:
        whole = (*shape, label.operations)
        columns["operations"] = rng.integers(0, 15, whole, np.uint8)
        columns["arguments"] = rng.random(whole).astype(np.float32)
    return columns


def _trace(config: RunConfig, shape: Shape, *, steps: int) -> int:
    """Return the bytes of a shard's loss curves and snapshots."""
    points = len({*range(0, steps, traced_every(steps)), steps - 1}) if steps else 0
    values = dict.fromkeys(("low", "lr", *config.recover.terms, "total"), 0.12345678901234567)
    point = len(json.dumps({"step": steps, **values}, separators=(",", ":"))) + 1
    names = shape.images * len('["n00000000",0],')
    picture = encode_pixels(_pixels(1, config.data.side, real=False)[0], "png")
    shown = (len(SNAPSHOTS) if steps else 0) * (len(picture) * 4 // 3 + 80)
    return shape.batches * (points * point + 25) + names + shown + 40


def _names(classes: int, each: int) -> tuple[ImageId, ...]:
    return tuple(ImageId(n, f"n{n:08d}", i) for n in range(classes) for i in range(each))


def _pixels(count: int, side: int, *, real: bool) -> np.ndarray:
    """Return stand-ins for images, (count, 3, S, S) uint8."""
    rng = np.random.default_rng(0)
    noise = rng.normal(128, CONTENT.pixel_spread, (count, 3, side, side))
    if real:  # a part of the rows is flat, so that the image compresses as photographs do
        noise[:, :, round(side * CONTENT.real_png) :] = 128
    return noise.round().clip(0, 255).astype(np.uint8)
