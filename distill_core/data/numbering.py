"""Which class has which id: append-only over the versions of a dataset.

A known class keeps its id for ever, so labels in files that are reused never change meaning. One
that is gone leaves a hole, which it fills again when it comes back; new ones are appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distill_core.sharding import ClassEntry


def number_classes(
    names: Sequence[str], known: Sequence[ClassEntry] = ()
) -> tuple[ClassEntry, ...]:
    """Return every class by id, holes included.

    Args:
        names: the classes that are there now, in the order of the dataset; unique.
        known: all classes of the version before, by id; none for a first version.
    """
    there, before = set(names), {entry.wnid for entry in known}
    kept = [replace(entry, removed=entry.wnid not in there) for entry in known]
    generation = 1 + max((entry.generation for entry in known), default=-1)
    added = [name for name in names if name not in before]
    return (*kept, *(ClassEntry(n, name, generation) for n, name in enumerate(added, len(kept))))
