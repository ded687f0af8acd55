"""Counter-based randomness: draws are named by their purpose, not by the time they are made.

key = blake2b(run seed, stage, purpose, images of the batch), counter = step. Results therefore do
not depend on the position in a queue, on the worker, or on earlier work (ADR 0008).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from distill_core.sharding import ImageId


def philox_key(seed: int, stage: str, purpose: str, images: Iterable[ImageId] = ()) -> int:
    """Return the 128-bit Philox key of one purpose.

    Args:
        seed: the run's seed.
        stage: the stage that draws, e.g. ``recover``.
        purpose: of the draws, e.g. ``views``; a new purpose does not change the others.
        images: of the batch; only their (wnid, ipc_index) enter the key.
    """
    name = [seed, stage, purpose, [(image.wnid, image.ipc_index) for image in images]]
    text = json.dumps(name, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def generator(key: int, step: int = 0) -> np.random.Generator:
    """Return the generator of one step; steps use disjoint blocks of the counter."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, in order."""
    text = json.dumps([seed, *names], separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
