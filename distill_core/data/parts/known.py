"""The images of the version before, which need not be read or decoded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from distill_core.data.index import DatasetIndex
from distill_core.data.index_table import SCHEMA
from distill_core.data.readers.record import ListedRecord, Split

ROWS = pa.schema([field for field in SCHEMA if field.name != "label"])  # of a shard

Row = tuple[Any, ...]  # in the order of ROWS


@dataclass(frozen=True)
class KnownImages:
    """What a previous version knows of the files of some classes."""

    rows: Mapping[str, Row] = field(default_factory=dict)  # by uri; those with a version
    decoded: frozenset[str] = frozenset()  # sha256 of readable images

    @classmethod
    def of(cls, index: DatasetIndex, splits: Sequence[Split], wnids: Sequence[str]) -> KnownImages:
        """Return what an index knows of some classes; it reads only their partitions."""
        wanted = set(wnids)
        labels = [entry.id for entry in index.classes if entry.wnid in wanted]
        rows: dict[str, Row] = {}
        decoded: set[str] = set()
        tables = (index.tables[split].of_classes(labels) for split in splits)
        for table in chain.from_iterable(tables):
            for row in table.select(ROWS.names).to_pylist():
                if row["wnid"] in wanted and row["status"] == "ok":
                    decoded.add(row["sha256"])
                if row["wnid"] in wanted and row["version"]:
                    rows[row["uri"]] = tuple(row[name] for name in ROWS.names)
        return cls(rows, frozenset(decoded))

    def row_of(self, listed: ListedRecord) -> Row | None:
        """Return the row of a file that is the same as before by uri, size and version."""
        row = self.rows.get(listed.uri)
        found = (listed.wnid, listed.name, listed.file.size, listed.file.version)
        same = row is not None and found == (row[0], row[1], row[4], row[8])
        return row if same else None
