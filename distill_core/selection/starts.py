"""The images that recover starts from: noise, or real images drawn, selected or stitched.

The ranking of a class depends on its content, the seed and the teacher alone, and is made once for
all batches of a class shard.

Axes: B images of a batch, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from distill_core.config.recovery import RecoverConfig
from distill_core.errors import ConfigError
from distill_core.models.teacher import FrozenTeacher
from distill_core.seeds import generator, philox_key
from distill_core.selection.class_images import ClassImages, forward_batches
from distill_core.selection.coreset import SELECTIONS, features_of
from distill_core.selection.mosaic import choose_candidates, rank_crops, stitch
from distill_core.sharding import Batch, ImageId


def gaussian(batch: Batch, side: int, *, seed: int) -> np.ndarray:
    """Return N(0, 1) noise, (B, 3, S, S) float32, in normalised space; not clamped, as published.

    Source: arXiv:2306.13092 (SRe2L), section 3.2.
    """
    rng = generator(philox_key(seed, "recover", "start", batch))
    return rng.standard_normal((len(batch), 3, side, side), dtype=np.float32)


def choose_real_rows(batch: Batch, images: ClassImages, *, seed: int) -> np.ndarray:
    """Choose one real image per synthetic one; a class repeats none until all are used.

    Returns:
        (B,) int64 rows.

    Raises:
        DataError: a class has no real image.
    """
    return np.array([_random_row(image, images, seed=seed) for image in batch])


def _random_row(image: ImageId, images: ClassImages, *, seed: int) -> int:
    rows = images.rows(image.label, image.wnid)
    order = generator(philox_key(seed, "recover", f"real/{image.wnid}")).permutation(len(rows))
    return int(rows[order[image.ipc_index % len(rows)]])


@dataclass
class Starts:
    """The starts of the images of one class shard.

    Args:
        config: `init`, and its settings.
        seed: the run's seed.
        teacher: frozen; it scores crops and computes features.
        images: real images, for every `init` but gaussian.
        selected: synthetic image -> place among the rows of its class, for `init: judged`.
        reach: images per class up to which a class is ranked.

    Raises:
        ConfigError: the config needs real images, or their selection, and there is none.
    """

    config: RecoverConfig
    seed: int
    teacher: FrozenTeacher
    images: ClassImages | None = None
    selected: Callable[[ImageId], int] | None = None
    reach: int = 1
    _ranked: dict[int, np.ndarray] = field(default_factory=dict)  # by class: crops, or rows

    def __post_init__(self) -> None:
        if self.config.reads_real_images and self.images is None:
            raise ConfigError(
                f"recover.init = {self.config.init}: it starts from real images, none were given. "
                "Give the real images, or use init: gaussian."
            )
        if self.config.init == "judged" and self.selected is None:
            raise ConfigError(
                "recover.init = judged: no selection of real images was given. Select them first."
            )

    def of(self, batch: Batch) -> np.ndarray | None:
        """Return a start per synthetic image, (B, 3, S, S) uint8; None starts from noise.

        Raises:
            DataError: a class has no real image.
        """
        if self.images is None:
            return None
        match self.config.init:
            case "gaussian":
                return None
            case "real":
                rows = choose_real_rows(batch, self.images, seed=self.seed)
            case "mosaic":
                return np.stack([self._mosaic(image, self.images) for image in batch])
            case "judged":
                rows = np.array([self._selected_row(image, self.images) for image in batch])
            case "herding" | "k_center":
                rows = np.array([self._coreset_row(image, self.images) for image in batch])
        return self.images.pixels_of(rows)

    def _mosaic(self, image: ImageId, images: ClassImages) -> np.ndarray:
        mosaic = self.config.mosaic
        assert mosaic is not None
        if image.label not in self._ranked:
            rows = images.rows(image.label, image.wnid)
            ranked = rank_crops(
                images.pixels_of(choose_candidates(rows, image.wnid, mosaic, seed=self.seed)),
                image.label,
                image.wnid,
                config=mosaic,
                teacher=self.teacher,
                seed=self.seed,
            )
            # A copy of those whose turn comes, so that the others' memory is free again.
            self._ranked[image.label] = ranked.crops[: self.reach * mosaic.factor**2].copy()
        return stitch(self._ranked[image.label], image.ipc_index, factor=mosaic.factor)

    def _selected_row(self, image: ImageId, images: ClassImages) -> int:
        assert self.selected is not None
        return int(images.rows(image.label, image.wnid)[self.selected(image)])

    def _coreset_row(self, image: ImageId, images: ClassImages) -> int:
        if image.label not in self._ranked:
            rows = images.rows(image.label, image.wnid)
            features = features_of(map(images.pixels_of, forward_batches(rows)), self.teacher)
            self._ranked[image.label] = rows[SELECTIONS[self.config.init](features, self.reach)]
        ranked = self._ranked[image.label]
        return int(ranked[image.ipc_index % len(ranked)])
