"""Division of a whole dataset by a split rule, block of classes by block of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from distill_core.config.split_rule import SplitRule
from distill_core.data.index import number_classes
from distill_core.data.index_files import SPLITS
from distill_core.data.parts.counts import SplitCounts
from distill_core.data.parts.rows import SplitRows, ids_of
from distill_core.data.parts.summary import PartSummary, summarise
from distill_core.data.readers.record import Split
from distill_core.data.splits.divide import divide_rows, renumber
from distill_core.sharding import ClassEntry


@dataclass(frozen=True)
class Division:
    """The splits that a rule makes of a dataset."""

    names: tuple[str, ...]  # of the classes that the rule keeps
    classes: tuple[ClassEntry, ...]  # every class by id, holes included
    rows: dict[Split, SplitRows]


def divide_split(
    whole: SplitRows, rule: SplitRule, names: Sequence[str], known: Sequence[ClassEntry]
) -> Division:
    """Return the rows of both splits.

    All blocks are read once, for which classes are left and for the numbers of images. The ids of
    the classes that are left follow in the same order, so blocks stay blocks, and sorted.

    Args:
        whole: rows of the dataset, whose ids are those of `number_classes(names, known)`.
        rule: the rule.
        names: all classes, in the order of the reader.
        known: every class of the version before by id.
    """
    summaries: dict[Split, list[PartSummary]] = {split: [] for split in SPLITS}
    dropped: set[str] = set()
    for number in range(len(whole.bounds)):
        divided = divide_rows(whole.load(number), rule)
        dropped |= divided.dropped
        for split in SPLITS:
            summaries[split].append(summarise(divided.of(split)))
    kept = tuple(name for name in names if name not in dropped)
    classes = number_classes(kept, known)
    ids = ids_of(classes)
    left = np.cumsum([0, *(entry.wnid in ids for entry in number_classes(names, known))])
    bounds = [(min(first, int(left[first])), int(left[last])) for first, last in whole.bounds]
    rows = {}
    for split in SPLITS:
        counts = SplitCounts(ids)
        for summary in summaries[split]:
            counts.add(summary)
        rows[split] = SplitRows(counts, bounds, partial(_load, whole, rule, ids, split))
    return Division(kept, classes, rows)


def _load(
    whole: SplitRows, rule: SplitRule, ids: Mapping[str, int], split: Split, number: int
) -> pa.Table:
    """Return the rows of a block that belong to a split."""
    return renumber(divide_rows(whole.load(number), rule).of(split), ids).combine_chunks()
