"""The summary of a part: the rows of each class and the images that cannot be used."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pyarrow as pa


@dataclass(frozen=True)
class Reject:
    """An image that cannot be used."""

    wnid: str  # empty if it belongs to no class
    name: str
    uri: str
    offset: int
    reason: str  # a sentence


@dataclass(frozen=True)
class PartSummary:
    """What the driver needs to know of a part without its rows."""

    classes: Mapping[str, tuple[int, int]]  # rows, and bad ones among them, by wnid
    rejects: tuple[Reject, ...]
    # First path and number by reason, of members of archives that were passed over
    passed_over: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the summary as it is stored."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> PartSummary:
        """Read a stored summary, whose bytes were compared with their hash."""
        tree = json.loads(data)
        classes = {wnid: (rows, bad) for wnid, (rows, bad) in tree["classes"].items()}
        passed_over = {why: (path, count) for why, (path, count) in tree["passed_over"].items()}
        return cls(classes, tuple(Reject(**each) for each in tree["rejects"]), passed_over)


def summarise(table: pa.Table) -> PartSummary:
    """Return the summary of the rows of a part, or of some rows of an index."""
    rows, bad = Counter[str](), defaultdict[str, int](int)
    rejects = []
    names = ("wnid", "name", "uri", "offset", "reason")
    for wnid, status, row in zip(
        table["wnid"].to_pylist(),
        table["status"].to_pylist(),
        range(table.num_rows),
        strict=True,
    ):
        rows[wnid] += 1
        if status == "bad":
            bad[wnid] += 1
            rejects.append(Reject(*(table[name][row].as_py() for name in names)))
    return PartSummary({wnid: (rows[wnid], bad[wnid]) for wnid in sorted(rows)}, tuple(rejects))
