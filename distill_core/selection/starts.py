"""The real images that recover starts from, by synthetic image: drawn, selected or stitched.

What is ranked of a class depends on its content, the seed and the teacher alone, and is ranked once
for all batches of a class shard.

Axes: B images of a batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from distill_core.config.recovery import RecoverConfig
from distill_core.errors import DataError
from distill_core.models.teacher import FrozenTeacher
from distill_core.selection.coreset import FORWARD_BATCH, SELECTIONS, features_of
from distill_core.selection.mosaic import choose_candidates, rank_crops, stitch
from distill_core.selection.start import choose_real_rows
from distill_core.sharding import Batch, ImageId

Rows = np.ndarray  # (n,) int64, of the index


@dataclass
class Starts:
    """Where the images of one class shard start.

    Args:
        config: says how a start is made.
        seed: the run's seed.
        rows_of: class id -> rows of its readable real images.
        pixels_of: rows -> (n, 3, S, S) uint8.
        teacher: gives the one that scores crops or describes images; asked for when needed.
        device: where it is.
        reach: the images per class up to which a class is ranked.
        judged: synthetic image -> place among the rows of its class, for `init: judged`.
    """

    config: RecoverConfig
    seed: int
    rows_of: Callable[[int], Rows]
    pixels_of: Callable[[Rows], np.ndarray]
    teacher: Callable[[], FrozenTeacher]
    device: str | torch.device
    reach: int
    judged: Callable[[ImageId], int] | None = None
    _ranked: dict[int, np.ndarray] = field(default_factory=dict)  # by class: crops, or rows

    def of(self, batch: Batch) -> np.ndarray | None:
        """Return a start per synthetic image, (B, 3, S, S) uint8; None starts from noise.

        Raises:
            DataError: a class has no real image.
        """
        match self.config.init:
            case "gaussian":
                return None
            case "real":
                return self.pixels_of(
                    np.array(choose_real_rows(batch, self.rows_of, seed=self.seed))
                )
            case "mosaic":
                return np.stack([self._mosaic(image) for image in batch])
            case "judged":
                judged = self.judged
                assert judged is not None
                return self.pixels_of(np.array([self._rows(i)[judged(i)] for i in batch]))
            case "herding" | "k_center":
                return self.pixels_of(np.array([self._selected(image) for image in batch]))

    def _mosaic(self, image: ImageId) -> np.ndarray:
        mosaic = self.config.mosaic
        assert mosaic is not None
        if image.label not in self._ranked:
            rows = choose_candidates(self._rows(image), image.wnid, mosaic, seed=self.seed)
            ranked = rank_crops(
                self.pixels_of(rows),
                image.label,
                image.wnid,
                config=mosaic,
                teacher=self.teacher(),
                seed=self.seed,
                device=self.device,
            )
            # A copy of those whose turn comes, so that the others' memory is free again.
            self._ranked[image.label] = ranked.crops[: self.reach * mosaic.factor**2].copy()
        return stitch(self._ranked[image.label], image.ipc_index, factor=mosaic.factor)

    def _selected(self, image: ImageId) -> int:
        """Return the row of the real image whose turn it is."""
        if image.label not in self._ranked:
            rows = self._rows(image)
            features = features_of(self._parts(rows), self.teacher(), device=self.device)
            self._ranked[image.label] = rows[SELECTIONS[self.config.init](features, self.reach)]
        chosen = self._ranked[image.label]
        return int(chosen[image.ipc_index % len(chosen)])

    def _parts(self, rows: Rows) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), FORWARD_BATCH):
            yield self.pixels_of(rows[start : start + FORWARD_BATCH])

    def _rows(self, image: ImageId) -> Rows:
        rows = self.rows_of(image.label)
        if len(rows) == 0:
            raise DataError(f"class {image.wnid}: no real image to start from. Use init: gaussian.")
        return rows
