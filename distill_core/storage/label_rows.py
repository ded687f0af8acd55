"""The contents of a label shard in memory, and the choice of what is stored per label.

A network's head is linear, so logits can be computed from stored penultimate features with one
matmul, and the size of a label then does not grow with the class count. Features are stored with 8
or 4 bits per channel, one affine map per file, and the head is stored once. At T = 20 the rounding
loses at most 0.01 % of a label's information, KL(p || uniform), at 8 bits, and at most 0.5 % at 4;
`tests/distill_core/labels/test_codec.py` asserts both bounds. `distill_core.labels.encoding` and
`distill_core.labels.decoding` apply the map.

Axes: V views, N images, D features, C classes, G patches per side, K operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill_core.errors import DataError
from distill_core.sharding import ImageId

Scheme = Literal["features", "logits", "topk", "online"]


@dataclass(frozen=True, eq=False)
class Affine:
    """The map from codes to features, ``codes * scale + offset``; see `labels.decoding`."""

    scale: np.ndarray  # (D,) float32; 0 where a channel is constant
    offset: np.ndarray  # (D,) float32
    bits: int = 8  # of a code; at 4, a byte holds two


def choose_scheme(
    scheme: Literal["auto", "features", "logits", "topk", "online"],
    *,
    features: int,
    classes: int,
    bits: int = 8,
) -> Scheme:
    """Resolve ``auto`` to the smaller of features (D codes) and fp16 logits (2 C bytes)."""
    if scheme != "auto":
        return scheme
    return "features" if features * bits <= 16 * classes else "logits"


@dataclass(frozen=True, eq=False)
class LabelRows:
    """The labels of N images under V views; fields that the mix does not use are neutral."""

    scheme: str  # features, logits, topk or online
    teacher: str  # sha256 of the weights, whose head maps features to logits
    images: tuple[ImageId, ...]  # N, as in the image shard
    views: Sequence[int]  # V view ids
    boxes: np.ndarray  # (V, N, 4) int32: top, left, height, width
    flips: np.ndarray  # (V, N) bool
    mix_kind: str  # none, mixup, cutmix or cutout
    partners: np.ndarray  # (V, N) int32, positions in `images`; neutral: the image itself
    lam: np.ndarray  # (V, N) float32; neutral: 1
    mix_boxes: np.ndarray  # (V, N, 4) int32; neutral: 0
    colours: np.ndarray  # (V, N, 3) float32; neutral: 0
    # (V, N, D) uint8 features (two to a byte at 4 bits), (V, N, C) float16 logits, (V, N, k)
    # float16 of the largest, None online
    values: np.ndarray | None
    affine: Affine | None  # of features
    ids: np.ndarray | None = None  # (V, N, k) uint16, for topk: classes of the values
    rest: np.ndarray | None = None  # (V, N) float16, for topk: mean of the other logits
    patches: np.ndarray | None = None  # (V, N, 2, G) uint8; None: not shuffled
    operations: np.ndarray | None = None  # (V, N, K) uint8; None: no RandAugment
    arguments: np.ndarray | None = None  # (V, N, K) float32, of the operations
    images_sha256: str = ""  # of the file of the images; files of older versions lack it


def check_rows(rows: LabelRows) -> None:
    """Check that the rows can be stored.

    Raises:
        DataError: a box does not fit 16 bits, two images share a name, or values are missing.
    """
    for name, boxes in (("box", rows.boxes), ("mix_box", rows.mix_boxes)):
        if boxes.size and not 0 <= boxes.min() <= boxes.max() <= np.iinfo(np.uint16).max:
            raise DataError(
                f"label shard: {name} from {boxes.min()} to {boxes.max()}, expected 0 to "
                "65535 pixels inside the image."
            )
    if len(np.unique(image_names(rows.images))) != len(rows.images):
        raise DataError(
            "label shard: two images have the same label and ipc_index, expected unique pairs."
        )
    if (rows.values is None) != (rows.scheme == "online"):
        raise DataError(
            f"label shard: {'no' if rows.values is None else 'some'} values with scheme "
            f"{rows.scheme!r}. All schemes except 'online' store values."
        )
    if (rows.scheme == "topk") != (rows.ids is not None and rows.rest is not None):
        raise DataError(
            "label shard: ids and rest are required with scheme 'topk' and not allowed otherwise."
        )


def image_names(images: tuple[ImageId, ...]) -> np.ndarray:
    """Return the (label, ipc_index) of every image as one number, (N,) int64."""
    labels, indices = ([getattr(i, n) for i in images] for n in ("label", "ipc_index"))
    return pair(np.array(labels, np.int64), np.array(indices, np.int64))


def pair(label: np.ndarray, ipc_index: np.ndarray) -> np.ndarray:
    """Return one int64 number per (label, ipc_index)."""
    names: np.ndarray = (label.astype(np.int64) << 32) | ipc_index.astype(np.int64)
    return names
