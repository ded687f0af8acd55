"""What all keys have in common: how they are hashed, and what every shard's bytes depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from distill_core.config.data import DataConfig
from distill_core.config.schema import RunConfig

# Bumped on purpose when a stage's numerics change; golden tests fail when they change unannounced.
NUMERICS: Mapping[str, int] = {
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
    """Return the key of a shard of a stage: its own parts, and what all shards depend on."""
    common = {
        "stage": stage,
        "numerics": NUMERICS[stage],
        "threads": run.threads,
        "precision": run.precision,
        "pixels": _pixels(run.data),
    }
    return digest_of(common | dict(parts))


def _pixels(data: DataConfig) -> Any:
    """Return what decides a decoded, normalised pixel; paths and names do not."""
    return dumped(data, include={"num_classes", "side", "load", "resize", "mean", "std"})


def dumped(model: Any, **selection: Any) -> Any:
    """Return what differs from its default: a setting that is added later leaves keys as they are.

    So a default never changes: that would change results under keys that stay.
    """
    if model is None:
        return None
    return model.model_dump(mode="json", exclude_defaults=True, **selection)


def digest_of(parts: Any) -> str:
    """Return 32 hex digits of what JSON can say."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
