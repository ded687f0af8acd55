"""The classes of a label space, in its order, and their words.

The lists of ImageNet are files of the package timm. They are found without importing it, which
would import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from distill_core.errors import ConfigError
from distill_core.label_spaces.facts import SPACES, LabelSpace, digest_of

EXTRA = "distill[timm]"
WORDS = "imagenet_synset_to_lemma.txt"  # WordNet id, tab, words


def class_ids(name: str) -> tuple[str, ...]:
    """Return the ids of a space in the order in which its teachers have their outputs.

    Args:
        name: a key of `SPACES`.

    Raises:
        ConfigError: timm is not installed or has another list, or the space has no list.
    """
    return _class_ids(name)


def wordnet_words() -> Mapping[str, str]:
    """Return the words of every class of ImageNet by WordNet id; none if timm is not installed."""
    try:
        return _wordnet_words()
    except ConfigError:
        return {}


@lru_cache(maxsize=8)
def _class_ids(name: str) -> tuple[str, ...]:
    space = SPACES[name]
    ids = _listed(space)
    if len(ids) != space.count or digest_of(ids) != space.digest:
        raise ConfigError(
            f"label space {name}: the list has {len(ids):,} classes and hash "
            f"{digest_of(ids)[:16]}, expected {space.count:,} and {(space.digest or '')[:16]}. "
            "Install another version of timm."
        )
    return ids


def _listed(space: LabelSpace) -> tuple[str, ...]:
    if space.classes:
        return space.classes
    if space.file is not None:
        return tuple(_lines(space.file, space.name))
    if space.within is None or not space.places:
        raise ConfigError(
            f"label space {space.name}: its {space.count:,} classes are not listed anywhere, only "
            f"that they are part of {space.within}. Name a space that is listed."
        )
    whole = class_ids(space.within)
    return tuple(whole[place] for place in space.places)


@lru_cache(maxsize=1)
def _wordnet_words() -> Mapping[str, str]:
    pairs = (line.partition("\t") for line in _lines(WORDS, "words of ImageNet"))
    return MappingProxyType({wnid: words for wnid, _, words in pairs})


def _lines(file: str, name: str) -> list[str]:
    """Return the lines of a file of timm."""
    spec = find_spec("timm")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    if not places:
        raise ConfigError(
            f"label space {name}: its class list is a file of timm, which is not installed. "
            f"Install {EXTRA}."
        )
    path = Path(places[0], "data", "_info", file)
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except OSError as error:
        raise ConfigError(
            f"label space {name}: {path} cannot be read ({error.strerror}). Install another "
            "version of timm."
        ) from None
