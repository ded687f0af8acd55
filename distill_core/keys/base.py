"""The parts that all keys share: hashing, and the settings that decide every shard's bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from distill_core.config.data import DataConfig
from distill_core.config.schema import RunConfig

# Increased when a stage's numerics change on purpose; golden tests fail on any other change.
NUMERICS: Mapping[str, int] = {
    "squeeze": 2,
    "statistics": 3,
    "select": 2,
    "recover": 4,
    "relabel": 2,
    "posttrain": 2,
    "validate": 1,
}

# Manifests that record no numerics were written with these. It does not follow `NUMERICS`.
NUMERICS_OF_OLD_MANIFESTS: Mapping[str, int] = {
    "squeeze": 2,
    "statistics": 3,
    "select": 2,
    "recover": 4,
    "relabel": 2,
    "posttrain": 2,
    "validate": 1,
}


def content_fingerprint(fingerprints: Mapping[str, str]) -> str:
    """Return one hash over the content fingerprints of many classes."""
    return digest_of(dict(fingerprints))


def key_of(run: RunConfig, stage: str, parts: Mapping[str, Any]) -> str:
    """Return the key of a shard: a hash of its own parts and of those that all shards share."""
    common = {
        "stage": stage,
        "numerics": NUMERICS[stage],
        "threads": run.threads,
        "precision": run.precision,
        "pixels": _pixels(run.data),
    }
    return digest_of(common | dict(parts))


def _pixels(data: DataConfig) -> Any:
    """Return the settings that decide a decoded, normalised pixel; paths and names do not."""
    return dumped(data, include={"num_classes", "side", "load", "resize", "mean", "std"})


def repacked(data: DataConfig) -> dict[str, Any]:
    """Return the part of the keys of results of real images that packs add; none without packs.

    Packs that keep the bytes of the images add nothing.
    """
    pixels = None if data.pack is None else data.pack.pixels
    return {} if pixels is None else {"pack": pixels}


def dumped(model: Any, **selection: Any) -> Any:
    """Return the settings that differ from their defaults, so that new settings keep old keys.

    A default must therefore never change: results would change under keys that stay the same.
    """
    if model is None:
        return None
    return model.model_dump(mode="json", exclude_defaults=True, **selection)


def digest_of(parts: Any) -> str:
    """Return the first 32 hex digits of the sha256 of a JSON-able value."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
