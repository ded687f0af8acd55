"""The tables of names that apply to a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from distill_core.config.training import TIMM, ModelConfig
from distill_core.models.key_maps.convolutional import convolutional_maps
from distill_core.models.key_maps.key_map import KeyMap
from distill_core.models.key_maps.transformers import transformer_maps

HERE = "distill"  # the program of the names on the right of the tables


def key_maps_of(config: ModelConfig) -> tuple[KeyMap, ...]:
    """Return the tables whose names on the right are those of a network.

    A variant for small images has the names of the network that it is a variant of, and the tag of
    a network of timm decides no name.
    """
    name = config.name
    plain = name.partition(".")[0] if name.startswith(TIMM) else name.removesuffix("_small")
    return _by_network().get(plain, ())


@cache
def _by_network() -> Mapping[str, tuple[KeyMap, ...]]:
    """Return every table by the name of the network here, those of timm in both directions."""
    tables: dict[str, tuple[KeyMap, ...]] = {}
    for name, table in (convolutional_maps() | transformer_maps()).items():
        tables[name] = (*tables.get(name, ()), table)
        if table.program == "timm":
            theirs = f"{TIMM}{table.architecture}"
            tables[theirs] = (*tables.get(theirs, ()), table.inverse(HERE, name))
    return tables
