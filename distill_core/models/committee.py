"""Which teachers vote on an image, and how much each one counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from distill_core.config.committee import CommitteeConfig, WeightingConfig
from distill_core.seeds import generator, philox_key


def voters(
    config: CommitteeConfig, count: int, *, seed: int, ipc_index: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the places of the voters among `count` teachers, and their weights.

    Args:
        config: how many vote, and how they are chosen.
        count: teachers of the stage.
        seed: the run's seed.
        ipc_index: of the images; all classes of one index have the same voters.

    Source: arXiv:2501.07575 (CV-DD) and its published code: a random pair per index, or all pairs
    in order. Differs from the code: the draw is named by (seed, index).
    """
    every = tuple(combinations(range(count), config.voters or count))
    place = ipc_index % len(every)
    if config.choice == "random":
        rng = generator(philox_key(seed, "recover", "committee"), ipc_index)
        place = int(rng.integers(len(every)))
    return every[place], weights(config.weighting, every[place])


def weights(config: WeightingConfig | None, chosen: Sequence[int]) -> tuple[float, ...]:
    """Return how much each of the chosen teachers counts; the weights add up to 1."""
    if config is None:
        return (1 / len(chosen),) * len(chosen)
    scores = np.array([config.priors[teacher] for teacher in chosen]) / config.temperature
    shares = np.exp(scores - scores.max())
    return tuple((shares / shares.sum()).tolist())
