"""Counts of correct predictions."""

from __future__ import annotations

from collections.abc import Iterable

from distill_core.evaluation.accuracy import ClassHits, Hits


def add_up(blocks: Iterable[ClassHits]) -> dict[int, Hits]:
    """Return the hits by class over blocks of different images."""
    sums: dict[int, Hits] = {}
    for block in blocks:
        for label, hits in block.items():
            sums[label] = sums.get(label, Hits()) + hits
    return sums
