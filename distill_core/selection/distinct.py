"""The number of different real images that a set of images is made of."""

from __future__ import annotations

import numpy as np

from distill_core.config.recovery import RecoverConfig

# Starts that are real images as they are; a selection by rounds may take fewer than a class has.
COUNTED = ("real", "herding", "k_center")
WHOLE_IMAGES = (*COUNTED, "judged")


def starts_from_whole_images(config: RecoverConfig) -> bool:
    """Return whether every image starts from one real image of its class."""
    return config.init in WHOLE_IMAGES


def distinct_images(config: RecoverConfig, sizes: np.ndarray, *, ipc: int) -> int | None:
    """Return how many images of a set of real images differ; None: they are optimised, or cut.

    Args:
        config: of the set.
        sizes: (n,) readable training images of each class; a class repeats none before all are
            used.
        ipc: images per class of the set.
    """
    if config.steps or config.init not in COUNTED:
        return None
    return int(np.minimum(sizes, ipc).sum())


def too_small(sizes: np.ndarray, *, ipc: int) -> np.ndarray:
    """Return the positions of the classes with fewer images than a set has of each, smallest first.

    Args:
        sizes: (n,) readable training images of each class.
        ipc: images per class of the set.
    """
    few = np.flatnonzero(sizes < ipc)
    return few[np.argsort(sizes[few], kind="stable")]
