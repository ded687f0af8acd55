"""Division of the rows of a dataset into training and test rows by a split rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distill_core.config.split_rule import SplitRule
from distill_core.data.readers.record import Split
from distill_core.data.splits.rules import chosen_images


@dataclass(frozen=True)
class DividedRows:
    """The rows of whole classes, divided; rows of no class are training rows."""

    train: pa.Table
    test: pa.Table
    dropped: frozenset[str]  # wnids of the classes that the rule leaves out

    def of(self, split: Split) -> pa.Table:
        """Return the rows of a split."""
        return self.train if split == "train" else self.test


def divide_rows(rows: pa.Table, rule: SplitRule) -> DividedRows:
    """Divide the rows of some classes.

    An image without a name, as in some Parquet files, is named by its place.

    Args:
        rows: all rows of each of the classes, in any order, with the columns of the index.
        rule: the rule.
    """
    columns = (rows[name].to_pylist() for name in ("wnid", "name", "uri", "offset"))
    by_class: dict[str, list[tuple[int, str]]] = {}
    for place, (wnid, name, uri, offset) in enumerate(zip(*columns, strict=True)):
        by_class.setdefault(wnid, []).append((place, name or f"{uri}#{offset:015d}"))
    is_test, is_kept = np.zeros(len(rows), bool), np.ones(len(rows), bool)
    dropped = set()
    for wnid, images in by_class.items():
        if not wnid:
            continue
        places = np.array([place for place, _ in images])
        chosen = chosen_images(rule, wnid, [name for _, name in images])
        if chosen is None:
            dropped.add(wnid)
            is_kept[places] = False
        else:
            is_test[places] = chosen
    train, test = (rows.filter(pa.array(mask & is_kept)) for mask in (~is_test, is_test))
    return DividedRows(train, test, frozenset(dropped))


def renumber(rows: pa.Table, ids: Mapping[str, int]) -> pa.Table:
    """Return rows with the ids of their classes; those of no class keep -1.

    Args:
        rows: with the columns of the index.
        ids: by wnid.
    """
    labels = [ids[wnid] if wnid else -1 for wnid in rows["wnid"].to_pylist()]
    column = rows.schema.get_field_index("label")
    return rows.set_column(column, rows.schema.field("label"), pa.array(labels, pa.int32()))
