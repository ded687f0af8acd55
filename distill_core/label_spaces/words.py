"""Readable names of classes: from a file beside a dataset, or those of WordNet for ImageNet's ids.

Axes: C classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_core.label_spaces.lists import wordnet_words

WNID = re.compile(r"n\d{8}")
MAX_WORDS = 200  # characters of a readable name
SHOWN = 60  # characters in a title


@dataclass(frozen=True)
class ClassWords:
    """The readable names of classes by id; some classes may have none."""

    words: Mapping[str, str]

    def title(self, wnid: str) -> str:
        """Return e.g. ``tench (n01440764)``, or the id alone if that is all there is."""
        first = self.words.get(wnid, "").split(",")[0].strip()[:SHOWN]
        return f"{first} ({wnid})" if first and first != wnid else wnid

    def titles(self, wnids: Sequence[str]) -> tuple[str, ...]:
        """Return the titles of several classes."""
        return tuple(map(self.title, wnids))


def words_of(names: Sequence[str], files: Mapping[str, bytes]) -> ClassWords:
    """Return the readable names of the classes of a dataset.

    Args:
        names: (C,) ids of the classes, by label.
        files: contents of files beside the dataset by name, see `PARSERS`; the first one that
            names a class counts.
    """
    found: dict[str, str] = {}
    if any(WNID.fullmatch(name) for name in names):
        known = wordnet_words()
        found = {name: known[name] for name in names if name in known}
    wanted = set(names)
    for file in reversed(list(PARSERS)):
        if file in files:
            pairs = PARSERS[file](files[file].decode(errors="replace"), names)
            found |= {name: _clean(text) for name, text in pairs.items() if name in wanted}
    return ClassWords({name: text for name, text in found.items() if text})


def _lines(separator: str) -> Callable[[str, Sequence[str]], dict[str, str]]:
    def parse(text: str, names: Sequence[str]) -> dict[str, str]:
        pairs = (line.strip().partition(separator) for line in text.splitlines())
        return {key.strip(): words for key, _, words in pairs}

    return parse


def _json(text: str, names: Sequence[str]) -> dict[str, str]:
    """Return the names in a list by label, or in an object by id or by label."""
    try:
        tree: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(tree, list):
        tree = dict(enumerate(tree)) if len(tree) == len(names) else {}
    if not isinstance(tree, dict):
        return {}
    result: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, list) and len(value) == 2:  # [id, words], as in Keras
            key, value = value
        label = int(key) if str(key).isdecimal() and len(str(key)) < 7 else -1
        name = names[label] if 0 <= label < len(names) and str(key) not in names else str(key)
        result |= {name: value} if isinstance(value, str) else {}
    return result


# Names of files -> parser of (text, names of the classes by label). Earlier ones are preferred.
PARSERS: Mapping[str, Callable[[str, Sequence[str]], dict[str, str]]] = {
    "classes.tsv": _lines("\t"),
    "class_names.json": _json,
    "words.txt": _lines("\t"),
    "LOC_synset_mapping.txt": _lines(" "),
}


def _clean(text: str) -> str:
    """Return a name in one line of printable characters."""
    line = " ".join(text.split())[:MAX_WORDS]
    return "".join(character for character in line if character.isprintable())
