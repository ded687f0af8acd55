"""The numbers of rows of each class of a split, added up over its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distill_core.data.parts.summary import PartSummary, Reject
from distill_core.sharding import ClassEntry


class SplitCounts:
    """The rows and the unreadable rows of each class of a split, added up over its parts.

    Args:
        ids: id of each class by wnid; -1 for the empty one, of images of no class.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        count = 1 + max(ids.values(), default=-1)
        self.rows = np.zeros(count, np.int64)  # of each class
        self.bad = np.zeros(count, np.int64)  # likewise, unreadable ones
        self.unlabelled = 0  # rows of no class; all of them are unreadable
        self._first: dict[int, Reject] = {}  # by class

    def add(self, summary: PartSummary) -> list[int]:
        """Add a part; return the ids of its classes, with -1 if it has rows of none."""
        for wnid, (rows, bad) in summary.classes.items():
            label = self._ids[wnid]
            if label < 0:
                self.unlabelled += rows
            else:
                self.rows[label] += rows
                self.bad[label] += bad
        for reject in summary.rejects:
            label = self._ids[reject.wnid]
            known = self._first.get(label)
            if known is None or _order(reject) < _order(known):
                self._first[label] = reject
        return [self._ids[wnid] for wnid in summary.classes]

    @property
    def total(self) -> int:
        """Return the number of rows."""
        return int(self.rows.sum()) + self.unlabelled

    @property
    def rejected(self) -> int:
        """Return the number of unreadable rows."""
        return int(self.bad.sum()) + self.unlabelled

    @property
    def first(self) -> Reject:
        """Return the first unreadable row, in the order of the index."""
        return self._first[min(self._first)]

    def first_of(self, label: int) -> Reject:
        """Return the first unreadable row of a class that has one."""
        return self._first[label]

    def without_images(self, classes: Sequence[ClassEntry]) -> list[ClassEntry]:
        """Return the classes without a readable image."""
        return [entry for entry in classes if self.rows[entry.id] == self.bad[entry.id]]


def _order(reject: Reject) -> tuple[str, str, int]:
    return reject.name, reject.uri, reject.offset
