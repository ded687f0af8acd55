"""The workers that make image shards and label shards: plain classes, one shard per job.

The same class runs in this process, in a spawned process and as a Ray actor. Its constructor gets
plain strings and loads teachers from storage itself; `run` reads its marker first, returns a
receipt, and is idempotent. Torch is imported inside the methods, because the driver has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distill_core.sharding import ImageId, batches_of
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.statistics_files import (
    POOLED,
    ClassStatistics,
    Rows,
    decode_pooled,
    decode_statistics,
    pooled,
)
from tasks.jobs import Job, Receipt
from tasks.stages.recover import RecoverPayload
from tasks.stages.relabel import RelabelPayload
from tasks.stages.select_worker import read_selection
from tasks.stages.worker import WorkerContext, receipt, require

if TYPE_CHECKING:
    from distill_core.recover.shard import TeacherStatistics


class RecoverWorker:
    """Makes the images of one class shard."""

    def __init__(self, *, groups: int | None = None, **context: Any) -> None:
        self.context = WorkerContext("recover", **context)
        self.groups = groups
        self._pooled: dict[
            tuple[str, ...], Rows
        ] = {}  # of all classes, by the keys of their blocks

    def peek(self) -> tuple[int, int]:
        """Return (steps done, steps in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[RecoverPayload]) -> Receipt:
        """Write one image shard and return its receipt."""
        from distill_core.recover.batching import LaunchLimit
        from distill_core.recover.setup import RecoverySetup
        from distill_core.recover.shard import recover_shard
        from distill_core.recover.trace import encode_trace
        from distill_core.storage.image_shards import encode_images

        if done := self.context.begin(job):
            return receipt(done, won=False)
        since, payload, config = time.perf_counter(), job.payload, self.context.config
        recover = config.recover_for(payload.image_set)
        setup = RecoverySetup(
            recover,
            [self.context.teacher(number) for number in recover.teachers],
            config.seed,
            self.context.student(payload.student),
        )
        shard = recover_shard(
            batches_of(payload.groups, payload.grids),
            setup,
            real=self.context.class_images,
            selected=self._selected(payload.selection, first=payload.round_start),
            statistics=self._statistics(payload.statistics, payload.every_class),
            limit=LaunchLimit(self.groups, job.split),
            progress=self.context.progress,
        )
        images = encode_images(shard.rows, encoding=config.recover.encoding, losses=shard.losses)
        last = shard.batches[-1].trace[-1:]
        return self.context.commit(
            job,
            {"parquet": images, "trace.json": encode_trace(shard.batches)},
            since=since,
            rows=len(shard.rows.images),
            classes=len({image.label for image in shard.rows.images}),
            summary=last[0] if last else {},
        )

    def _selected(self, key: str | None, *, first: int) -> Callable[[ImageId], int] | None:
        """Return the place of the real image selected for a synthetic one, if any was.

        Args:
            key: of the selection.
            first: ipc_index of the first image of the round.
        """
        if key is None:
            return None
        selection = read_selection(self.context, key)
        return lambda image: selection[image.wnid].start_of(image.ipc_index - first)

    def _statistics(
        self, keys: Sequence[str], every: Sequence[Sequence[str]]
    ) -> list[TeacherStatistics]:
        """Return the statistics of real images by teacher; none where no term needs them.

        Args:
            keys: of the block of classes, by teacher.
            every: of all blocks, by teacher; empty where no term needs all classes.
        """
        from distill_core.recover.shard import TeacherStatistics

        return [
            TeacherStatistics(self._block(key), self._every_class(tuple(blocks)))
            for key, blocks in zip(keys, every or [()] * len(keys), strict=True)
        ]

    def _block(self, key: str) -> ClassStatistics:
        shard_store = ShardStore(self.context.run.store, "statistics")
        return decode_statistics(shard_store.load(require(shard_store, key), "safetensors"))

    def _every_class(self, keys: tuple[str, ...]) -> Rows | None:
        """Return the statistics of all classes together, from the small files of all blocks."""
        if not keys:
            return None
        if keys not in self._pooled:
            shard_store = ShardStore(self.context.run.store, "statistics")
            files = (shard_store.load(require(shard_store, key), POOLED) for key in keys)
            self._pooled[keys] = pooled([decode_pooled(file) for file in files])
        return self._pooled[keys]


class RelabelWorker:
    """Labels a range of views of one image shard."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("relabel", **context)

    def peek(self) -> tuple[int, int]:
        """Return (views done, views in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[RelabelPayload]) -> Receipt:
        """Write one label shard and return its receipt."""
        from distill_core.labels.relabel import relabel_shard
        from distill_core.storage.label_shards import encode_labels

        if done := self.context.begin(job):
            return receipt(done, won=False)
        since = time.perf_counter()
        rows, views = self.context.images(job.payload.images), job.payload.views
        labels = relabel_shard(
            rows,
            views,
            config=self.context.config.relabel,
            teacher=self.context.labeller,
            seed=self.context.config.seed,
            progress=self.context.progress,
            parts=job.split,
        )
        return self.context.commit(
            job,
            {"parquet": encode_labels(labels)},
            since=since,
            rows=len(rows.images) * len(views),
            classes=len({image.label for image in rows.images}),
        )
