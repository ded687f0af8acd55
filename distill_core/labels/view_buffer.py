"""One view of all label shards in memory: every array once, filled by those who read the shards.

Axes: N images of all S shards, n of one, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from distill_core.errors import DataError
from distill_core.labels.views import LabelView
from distill_core.storage.label_rows import Affine
from distill_core.storage.label_shards import LabelRows
from distill_core.transforms.mixing import Mix
from distill_core.transforms.rand_augment import Operations
from distill_core.transforms.views import View

PER_IMAGE = (
    *("boxes", "flips", "partners", "lam", "mix_boxes", "colours"),
    *("ids", "rest", "patches", "operations", "arguments"),
)


class ViewBuffer:
    """One view of all shards, filled shard by shard in any order.

    Args:
        counts: images of each shard, N in all.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = counts
        self._cuts = np.cumsum([0, *counts])
        self._lock = Lock()
        self._affines: list[Affine | None] = [None] * len(counts)
        self.arrays: dict[str, np.ndarray] = {}  # (N, ...) each; what a teacher said, by its scheme

    def put(self, shard: int, rows: LabelRows) -> None:
        """Copy the only view of a shard to where it belongs.

        Raises:
            DataError: it holds nothing a teacher said, other columns than the rest, or other
                images than expected.
        """
        part = _columns(rows)
        with self._lock:
            if not self.arrays:
                total = self._cuts[-1]
                self.arrays = {n: np.empty((total, *a.shape[1:]), a.dtype) for n, a in part.items()}
        start, stop = self._cuts[shard : shard + 2]
        found = {name: array.shape for name, array in part.items()}
        expected = {name: (stop - start, *a.shape[1:]) for name, a in self.arrays.items()}
        for name in sorted(found.keys() | expected.keys()):
            if (one := found.get(name)) != (other := expected.get(name)):
                raise DataError(
                    f"label shards: {name} of image shard {shard} has shape {one}, {other} "
                    "expected. Relabel the whole set with one config."
                )
        for name, array in part.items():
            self.arrays[name][start:stop] = array
        self.arrays["partners"][start:stop] += start  # rows of a shard become rows among all
        self._affines[shard] = rows.affine

    def drawn(self) -> LabelView:
        """Return the draws of all images."""
        a = self.arrays
        rolls = np.zeros((self._cuts[-1], 2), np.int32)
        return LabelView(
            View(a["boxes"], a["flips"], rolls),
            Mix(a["partners"], a["lam"], a["mix_boxes"], a["colours"]),
            patches=a.get("patches"),
            operations=Operations(a["operations"], a["arguments"]) if "operations" in a else None,
        )

    def owners(self) -> np.ndarray:
        """Return the shard of every image, (N,) int64."""
        return np.repeat(np.arange(len(self._counts)), self._counts)

    def affine(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the maps from codes to features: (S, D) scales, (S, D) offsets, bits.

        Raises:
            DataError: a shard has none.
        """
        maps = [one for one in self._affines if one is not None]
        if len(maps) < len(self._affines):
            raise DataError("label shard: features without their scale. Run `distill verify`.")
        scale, offset = (np.stack([getattr(m, name) for m in maps]) for name in ("scale", "offset"))
        return scale, offset, maps[0].bits


def _columns(rows: LabelRows) -> dict[str, np.ndarray]:
    """Return what a label shard says of its images in the one view that was read."""
    if rows.values is None:
        raise DataError("label shard: scheme online stores nothing to read. Relabel with features.")
    columns = {name: getattr(rows, name) for name in PER_IMAGE} | {rows.scheme: rows.values}
    return {name: array[0] for name, array in columns.items() if array is not None}
