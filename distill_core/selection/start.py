"""Where recover starts: noise, or real images.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distill_core.errors import DataError
from distill_core.seeds import generator, philox_key
from distill_core.sharding import Batch


def gaussian(batch: Batch, side: int, *, seed: int) -> np.ndarray:
    """Return N(0, 1) noise, (B, 3, S, S) float32, in normalised space; not clamped, as published.

    Source: arXiv:2306.13092 (SRe2L), section 3.2.
    """
    rng = generator(philox_key(seed, "recover", "start", batch))
    return rng.standard_normal((len(batch), 3, side, side), dtype=np.float32)


def choose_real_rows(
    batch: Batch, rows_of: Callable[[int], Sequence[int] | np.ndarray], *, seed: int
) -> list[int]:
    """Choose one real image per synthetic one; a class repeats none until all are used.

    Args:
        batch: the images to start.
        rows_of: class id -> rows of its readable real images.
        seed: the run's seed.

    Raises:
        DataError: a class has no real image.
    """
    return [_choose(rows_of(i.label), i.wnid, i.ipc_index, seed=seed) for i in batch]


def _choose(rows: Sequence[int] | np.ndarray, wnid: str, ipc_index: int, *, seed: int) -> int:
    if len(rows) == 0:
        raise DataError(f"class {wnid}: no real image to start from. Use init: gaussian.")
    order = generator(philox_key(seed, "recover", f"real/{wnid}")).permutation(len(rows))
    return int(rows[order[ipc_index % len(rows)]])
