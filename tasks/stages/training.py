"""Trainings of teachers and students: a gang, checkpoints, and one commit at the end.

With two or more processes a training runs in every process of a gang; the first commits. Training
resumes from the furthest checkpoint in storage, whoever wrote it. What stands in storage may
change at any moment, so the first process of a gang reads markers and checkpoints for all.

A checkpoint that cannot be saved or used costs time and never ends a training. Whenever one is
saved, the marker is looked up: a training whose result another driver has committed stops there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.errors import DistillError
from distill_core.progress import Notice
from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import new_token
from tasks.jobs import Job, Receipt
from tasks.stages.finished import receipt
from tasks.stages.worker import WorkerContext

if TYPE_CHECKING:
    from distill_core.training.distributed import DistributedContext
    from distill_core.training.runtime import TrainingRuntime


class CommittedElsewhere(Exception):
    """Another execution has committed the result of this training; raised in every process."""

    def __init__(self, marker: Marker) -> None:
        super().__init__(marker.key)
        self.marker = marker


@dataclass(frozen=True)
class SharedCheckpoints:
    """Checkpoints of a gang: every process goes on from the bytes that the first one read."""

    own: Checkpoints
    world: DistributedContext
    marker: Callable[[], Marker | None]  # reads the one of this training, if it exists
    notice: Notice

    def save(self, step: int, state: Callable[[], bytes], *, batches: int = 0) -> None:
        """Keep the state after `step` whole epochs and some batches; all processes must call this.

        Raises:
            CommittedElsewhere: the training is no longer needed.
        """
        committed = self.world.broadcast(lambda: self._save(step, state, batches))
        if committed is not None:
            raise CommittedElsewhere(committed)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield the stored states, the furthest first; all processes must ask equally often."""
        own = self.own.stored()  # advanced in the first process only
        while (found := self.world.broadcast(lambda: next(own, None))) is not None:
            yield found

    def _save(self, step: int, state: Callable[[], bytes], batches: int) -> Marker | None:
        """Save a checkpoint unless the result is committed; return the marker if it is."""
        try:
            if (marker := self.marker()) is not None:
                return marker
            self.own.save(step, state(), batches=batches)
        except DistillError as error:
            place = f"epoch {step}" + (f" and {batches} batches" if batches else "")
            self.notice(f"The checkpoint after {place} was not saved: {error}")
        return None


@dataclass(frozen=True)
class Trained:
    """The files and the summary of a finished training."""

    files: Callable[[], Mapping[str, bytes]]  # by suffix; asked of the first process alone
    summary: dict[str, Any]


def train_and_commit(
    context: WorkerContext,
    job: Job[Any],
    train: Callable[[TrainingRuntime], Trained],
) -> Receipt:
    """Train, from the last checkpoint on, and commit the result under the job's key."""
    from distill_core.training.distributed import DistributedContext
    from distill_core.training.intervals import SaveInterval
    from distill_core.training.runtime import TrainingRuntime

    if done := context.begin(job):
        return done
    since, world = time.perf_counter(), DistributedContext.current()
    store, shard_store = context.run.store, context.shard_store
    own = Checkpoints(store, shard_store.stage, job.key, new_token(), context.notice)
    shared = SharedCheckpoints(own, world, lambda: shard_store.marker(job.key), context.notice)
    runtime = TrainingRuntime(
        context.device,
        world,
        shared,
        context.progress,
        context.notice,
        SaveInterval.parse(context.planned.checkpoint_every),
    )
    try:
        trained = train(runtime)
    except CommittedElsewhere as ended:
        if world.is_main:
            _tidy(own.clear_own, context.notice)
        return receipt(ended.marker, won=False)
    if not world.is_main:
        return Receipt(job.key, job.shard)
    committed = context.commit(
        job,
        trained.files(),
        since=since,
        rows=1,
        classes=context.config.data.num_classes,
        summary=trained.summary,
    )
    _tidy(own.clear, context.notice)
    return committed


def _tidy(clear: Callable[[], None], notice: Notice) -> None:
    """Delete checkpoints that are no longer needed; `gc` deletes what cannot be deleted now."""
    try:
        clear()
    except DistillError as error:
        notice(f"The checkpoints of a finished training were not deleted: {error}")
