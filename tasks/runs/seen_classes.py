"""The classes that a teacher was trained without, although it has outputs for them.

A class that was removed from a dataset keeps its id, and a teacher that is trained meanwhile has an
output for it that no image has shaped.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.data.index_files import load_index
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tasks.runs.stage_status import manifests
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tasks.stages.squeeze import UNSEEN

SQUEEZE = StageId("squeeze")


def unseen_by_teachers(base: Run, history: Sequence[Run]) -> frozenset[str]:
    """Return the classes that one of the teachers of a run was trained without.

    Args:
        base: the run; its teachers are complete.
        history: the runs of its series, oldest first.
    """
    entries = manifests(base, SQUEEZE)[SQUEEZE].entries
    markers = ShardStore(base.store, "squeeze").markers([entry.key for entry in entries])
    unseen = (unseen_by(marker, history) for marker in markers if marker is not None)
    return frozenset().union(*unseen)


def unseen_by(teacher: Marker, history: Sequence[Run]) -> frozenset[str]:
    """Return the classes that a teacher was trained without.

    Its marker lists them. For a teacher of an older version, they are those without images in the
    dataset of the version that trained it. A teacher that was imported, or comes from outside the
    series, is assumed to know all of its classes.
    """
    recorded = teacher.summary.get(UNSEEN)
    if recorded is not None:
        return frozenset(recorded)
    for run in history:
        listed = manifests(run, SQUEEZE)
        keys = [entry.key for entry in listed[SQUEEZE].entries] if listed else []
        if teacher.key in keys:
            return _unseen_in(run, keys.index(teacher.key), history)
    return frozenset()


def _unseen_in(run: Run, number: int, history: Sequence[Run]) -> frozenset[str]:
    """Return the classes that a teacher was trained without by the run that made it."""
    squeeze = run.config.of_teacher(number).squeeze
    if squeeze.reuse is not None or squeeze.checkpoint is not None:
        return frozenset()
    empty = frozenset(load_index(run.store, dataset_of(run)).without_images("train"))
    if squeeze.start is None or not empty:
        return empty
    start = ShardStore(run.store, "squeeze").marker(squeeze.start)
    return empty if start is None else empty & unseen_by(start, history)
