"""The labels of one epoch after another, stored ones read an epoch ahead.

Two views are in memory at most: the one that is trained on, and the one that is being read.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from itertools import chain, pairwise

from distill_core.labels.sources import Labels, LabelSource, Prefetched, StoredLabels

Asked = tuple[LabelSource, Sequence[int]]  # a source, and the view of each of its shards


def labels_in_turn(asked: Iterable[Asked]) -> Generator[Labels, None, None]:
    """Yield the labels of every epoch; close the generator to let go of those read ahead.

    Only stored labels are read ahead: all others need the device that trains.

    Args:
        asked: what each epoch needs, an epoch longer known than needed.
    """
    ahead: Prefetched | None = None
    try:
        for now, then in pairwise(chain(asked, (None,))):
            assert now is not None
            labels = now[0].view(now[1]) if ahead is None else ahead.finish()
            ahead = None if then is None else _begun(*then)
            yield labels
    finally:
        if ahead is not None:
            ahead.stop()


def _begun(source: LabelSource, view: Sequence[int]) -> Prefetched | None:
    return source.begin(view) if isinstance(source, StoredLabels) else None
