"""Counter-based randomness: every draw is named by what it is for, never by when it is made.

key = blake2b(run seed, stage, purpose, images of the batch), counter = step. So nothing depends on
the position in a queue, on the worker, or on what ran before (ADR 0008).
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
        purpose: what the draws are for, e.g. ``views``; adding one never shifts the others.
        images: the batch the draws belong to; only (wnid, ipc_index) enter the key.
    """
    name = [seed, stage, purpose, [(image.wnid, image.ipc_index) for image in images]]
    text = json.dumps(name, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def generator(key: int, step: int = 0) -> np.random.Generator:
    """Return the generator of one step; two steps never share a block of the counter."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, in order."""
    text = json.dumps([seed, *names], separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
