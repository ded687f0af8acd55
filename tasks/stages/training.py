"""Trainings of teachers and students: a gang, checkpoints, and one commit at the end.

With two or more processes a training runs in every process of a gang; the first commits. Training
resumes from the furthest checkpoint in storage, whoever wrote it. What stands in storage may
change at any moment, so the first process of a gang reads markers and checkpoints for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.storage.checkpoints import Checkpoints
from distill_core.storage.shard_store import new_token
from tasks.jobs import Job, Receipt
from tasks.stages.worker import WorkerContext

if TYPE_CHECKING:
    from distill_core.training.distributed import DistributedContext
    from distill_core.training.runtime import TrainingRuntime


@dataclass(frozen=True)
class SharedCheckpoints:
    """Checkpoints of a gang: every process goes on from the bytes that the first one read."""

    own: Checkpoints
    world: DistributedContext

    def save(self, step: int, payload: bytes) -> None:
        """Keep the state after `step` whole epochs."""
        self.own.save(step, payload)

    def latest(self) -> tuple[int, bytes] | None:
        """Return the furthest state kept, the same in all processes; all of them must ask."""
        return self.world.broadcast(self.own.latest)


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
    from distill_core.training.runtime import TrainingRuntime

    if done := context.begin(job):
        return done
    since, world = time.perf_counter(), DistributedContext.current()
    checkpoints = Checkpoints(context.run.store, context.shard_store.stage, job.key, new_token())
    shared = SharedCheckpoints(checkpoints, world)
    trained = train(TrainingRuntime(context.device, world, shared, context.progress))
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
    checkpoints.clear()
    return committed
