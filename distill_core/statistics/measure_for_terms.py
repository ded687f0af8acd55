"""What the terms of a recovery need to know of one class of real images.

Axes: n images of the class, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from distill_core.config.recovery import RecoverConfig
from distill_core.models.moments import PATCH_SIDE
from distill_core.models.teacher import FrozenTeacher
from distill_core.seeds import generator, philox_key
from distill_core.selection.mosaic import choose_candidates, rank_crops
from distill_core.statistics.measure import describe_originals, measure_class
from distill_core.storage.statistics_files import Rows


def measure_for(
    config: RecoverConfig,
    label: int,
    wnid: str,
    rows: np.ndarray,
    *,
    pixels_of: Callable[[np.ndarray], np.ndarray],
    teacher: FrozenTeacher,
    scorer: FrozenTeacher,
    seed: int,
    device: str | torch.device,
) -> Rows:
    """Return what the images of a class do to a teacher, as far as a term asks.

    Args:
        config: terms, and how mosaics are made.
        label: class id.
        wnid: class name; names the draws.
        rows: (n,) the images of the class.
        pixels_of: some of them, (m, 3, S, S) uint8.
        teacher: who is measured; frozen, on `device`.
        scorer: who chooses the images that mosaics are made of.
        seed: the run's seed.
        device: where to compute.
    """
    found = {}
    if config.measured - {"originals"}:
        found = dict(
            measure_class(
                pixels_of(rows),
                teacher,
                device=device,
                measured=config.measured,
                patch=PATCH_SIDE if config.convolutions is None else config.convolutions.patch,
                points=0 if config.barycentre is None else config.barycentre.points,
                rng=generator(philox_key(seed, "statistics", f"barycentre/{wnid}")),
            )
        )
    if config.originals is not None and "originals" in config.measured:
        assert config.mosaic is not None
        chosen = choose_candidates(rows, wnid, config.mosaic, seed=seed)
        candidates = pixels_of(chosen)
        ranked = rank_crops(
            candidates,
            label,
            wnid,
            config=config.mosaic,
            teacher=scorer,
            seed=seed,
            device=device,
        )
        count = config.originals.images * config.tiles**2
        found["originals"] = describe_originals(
            candidates[ranked.order], teacher, config.originals, count=count, device=device
        )
    return found
