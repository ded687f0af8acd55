"""Comparison of class lists by name: a mismatch is refused whatever the counts are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from distill_core.errors import ConfigError, DataError
from distill_core.label_spaces.facts import SPACES, LabelSpace, digest_of, find_space
from distill_core.label_spaces.lists import class_ids, wordnet_words

LISTED = 3  # classes that an error names, at most


def check_names(names: Sequence[str], space: str, *, where: str) -> None:
    """Check that names are the classes of a space, as ids or as words, in any order.

    Names that have the hash of the space need no list: timm is read only to explain a mismatch, or
    to compare words.

    Args:
        names: all classes of a dataset, unique.
        space: a key of `SPACES`.
        where: names the dataset in errors.

    Raises:
        ConfigError: they are to be compared with a list of timm, which is not installed.
        DataError: they are other classes.
    """
    wanted = SPACES[space]
    if digest_of(names) != wanted.digest:
        ids_of(names, space, where=where)


def check_contains(names: Sequence[str], space: str, *, where: str) -> None:
    """Check that all classes of a space are among names, of which some are left out later.

    Args:
        names: the classes of a dataset.
        space: a key of `SPACES`, one that is listed.
        where: names the dataset in errors.

    Raises:
        ConfigError: timm is not installed, and the space is one of its lists.
        DataError: some classes are missing; the message names the first ones.
    """
    if missing := sorted(set(class_ids(space)) - set(names)):
        raise DataError(
            f"{where}: {_some(missing)} of the {SPACES[space].count:,} classes of {space} are "
            f"missing. Complete the dataset, or unset data.label_space."
        )


def ids_of(names: Sequence[str], space: str, *, where: str) -> tuple[str, ...]:
    """Return the id of every name in a space; a name is an id, or the words of one.

    Words as in Hugging Face's ImageNet ("tench, Tinca tinca") are compared without case. Where two
    classes have the same words, the first name is that of the first class.

    Args:
        names: all classes of a dataset, unique.
        space: a key of `SPACES`.
        where: names the dataset in errors.

    Raises:
        ConfigError: timm is not installed, and the space is one of its lists.
        DataError: they are other classes; the message names the first ones.
    """
    wanted = SPACES[space]
    if digest_of(names) == wanted.digest:
        return tuple(names)
    if not wanted.listed:
        return _part_of(names, wanted, where)
    ids = class_ids(space)
    if not set(names) & set(ids) and (found := _by_words(names, ids)):
        return found
    raise _mismatch(names, ids, wanted, where)


def order_in(classes: Sequence[str], outputs: Sequence[str], *, where: str) -> tuple[int, ...]:
    """Return the output of every class, where a teacher has its outputs in another order or more.

    Args:
        classes: (C,) ids of the classes of a dataset, by label.
        outputs: ids of a teacher's outputs, in order.
        where: names the teacher in errors.

    Returns:
        (C,) places in `outputs`.

    Raises:
        ConfigError: the teacher lacks a class.
    """
    places = {name: place for place, name in enumerate(outputs)}
    if lacking := [name for name in classes if name not in places]:
        raise ConfigError(
            f"{where}: the teacher has no output for {_some(lacking)} of the {len(classes):,} "
            "classes of the dataset. Use a teacher that knows them all, or correct the label space."
        )
    return tuple(places[name] for name in classes)


def _part_of(names: Sequence[str], space: LabelSpace, where: str) -> tuple[str, ...]:
    """Return the names, of which only the number and the spaces around and in them are known."""
    assert space.within is not None
    around, there = set(class_ids(space.within)), set(names)
    extra = [name for name in names if name not in around]
    inside = () if space.contains is None else class_ids(space.contains)
    lacking = [name for name in inside if name not in there]
    if len(names) != space.count or extra or lacking:
        other = f", of which {_some(extra)} are not in {space.within}" if extra else ""
        lost = f", without {_some(lacking)} of {space.contains}" if lacking else ""
        raise DataError(
            f"{where}: {len(names):,} classes{other}{lost}, expected the {space.count:,} of "
            f"{space.name}.{_hint(names)}"
        )
    return tuple(names)


def _by_words(names: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
    """Return the id of every name by its words; nothing unless each class has one name."""
    words, waiting = wordnet_words(), defaultdict[str, list[str]](list)
    for each in reversed(ids):
        waiting[_key(words.get(each, each))].append(each)
    found = []
    for name in names:
        # Hugging Face distinguishes equal words by a number.
        key = _key(name) if _key(name) in waiting else re.sub(r"\s*\d+$", "", _key(name))
        if not waiting[key]:
            return ()
        found.append(waiting[key].pop())
    return tuple(found) if len(found) == len(ids) else ()


def _key(words: str) -> str:
    return " ".join(words.replace("_", " ").lower().split())


def _mismatch(names: Sequence[str], ids: Sequence[str], space: LabelSpace, where: str) -> DataError:
    missing, extra = sorted(set(ids) - set(names)), sorted(set(names) - set(ids))
    parts = [f"{_some(missing)} are missing"] if missing else []
    parts += [f"{_some(extra)} are not among them"] if extra else []
    return DataError(
        f"{where}: not the {space.count:,} classes of {space.name}: {' and '.join(parts)}."
        f"{_hint(names)}"
    )


def _hint(names: Sequence[str]) -> str:
    other = find_space(names)
    if other is not None:
        return f" They are those of {other.name}: set data.label_space to it."
    return " Correct the dataset, or unset data.label_space."


def _some(names: Sequence[str]) -> str:
    """Return e.g. ``2 ('n01440764 tench', 'n01443537 goldfish')``."""
    words = wordnet_words()
    shown = [repr(f"{n} {words[n].split(',')[0]}" if n in words else n) for n in names[:LISTED]]
    more = ", ..." if len(names) > LISTED else ""
    return f"{len(names):,} ({', '.join(shown)}{more})"
