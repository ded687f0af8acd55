"""The recover stage: one image shard per class shard and image set."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.config.recovery import RecoverConfig
from distill_core.keys import ImageSet, RecoverReads, recover_key
from distill_core.sharding import ClassShard, Grid, Group, ImageId, batches_of
from distill_core.storage.manifest import ManifestEntry
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
from tasks.stages.inputs import Block, Jobs, RunInputs, first_images, shard_name
from tasks.stages.names import StageId
from tasks.stages.reads import Reads
from tasks.stages.select import (
    SELECTION,
    made_selections,
    read_selection,
    selection_name,
)
from tasks.stages.statistics import made_statistics, statistics_name
from tasks.stages.worker import WEIGHTS, WorkerContext

if TYPE_CHECKING:
    from distill_core.recover.shard import TeacherStatistics

STATISTICS = "safetensors"  # suffix of the file of a block's class statistics


@dataclass(frozen=True)
class RecoverPayload:
    """The image shard to make, and what it reads; see `distill_core.sharding.ClassShard`."""

    image_set: ImageSet
    groups: tuple[Group, ...]
    grids: tuple[Grid, ...]
    statistics: tuple[Reads, ...]  # class statistics of the block, by teacher
    every_class: tuple[Reads, ...]  # those of all blocks, by teacher
    selection: Reads | None  # the real images that were selected as starts
    student: Reads | None  # of the rounds before
    round_start: int  # first ipc_index of the shard's round


@dataclass(frozen=True)
class _Read:
    """The shards that images are made from, by block of classes."""

    statistics: Sequence[Mapping[Block, ManifestEntry]]  # by teacher
    selections: Sequence[Mapping[Block, ManifestEntry]]  # by round


def recover_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per class shard and image set of the rounds that a stage covers.

    None where class statistics, or the choice of real images, were given up. Random real images
    come with the last round.
    """
    config, number = plan.run.config.recover, stage.last_round(plan.run.config)
    teachers = config.teachers if config.needs_class_statistics else ()
    read = _Read(
        [made_statistics(plan, teacher) for teacher in teachers],
        made_selections(plan, number) if config.init == "judged" else [],
    )
    return {
        stage.of(images): tuple(
            _recover_job(plan, images, shard, read) for shard in _shards_of(plan, images, number)
        )
        for images in (plan.run.config.image_sets if stage.is_last else ("distilled",))
    }


def _shards_of(plan: RunInputs, images: ImageSet, number: int) -> list[ClassShard]:
    """Return the class shards of one set for which everything that they read exists."""
    config = plan.run.config.recover_for(images)
    given_up: dict[int, frozenset[str]] = {}
    for part in range(1, number + 1):
        names = plan.missing(StageId("statistics")) if config.needs_class_statistics else ()
        if config.init == "judged":
            names = (*names, *plan.missing(StageId.up_to(plan.run.config, "select", part)))
        given_up[part] = frozenset(names)
    return [
        shard
        for shard in plan.shards_of(number)
        if given_up[plan.round_of(shard)].isdisjoint(_blocks_read(shard, config))
    ]


def _blocks_read(shard: ClassShard, config: RecoverConfig) -> set[str]:
    """Return the names of the shards of other stages that a class shard may read."""
    block = first_images(shard)
    return {selection_name(block), *(statistics_name(block, number) for number in config.teachers)}


def _recover_job(
    plan: RunInputs, images: ImageSet, shard: ClassShard, read: _Read
) -> Job[RecoverPayload]:
    config, number = plan.run.config.recover_for(images), plan.round_of(shard)
    block = first_images(shard)
    statistics = [made[block] for made in read.statistics] if config.needs_class_statistics else []
    selection = read.selections[number - 1][block] if config.init == "judged" else None
    student = plan.student(number) if config.needs_student and number > 1 else None
    # Of the blocks that were not given up, in order
    every = [list(made.values()) for made in read.statistics] if config.needs_every_class else []
    key = recover_key(
        plan.run.config,
        images,
        shard,
        reads=RecoverReads(
            teachers=plan.digests(config.teachers),
            statistics=[entry.content(STATISTICS) for entry in statistics],
            every=[entry.content(POOLED) for entries in every for entry in entries],
            selection=None if selection is None else selection.content(SELECTION),
            student=None if student is None else student.sha256(WEIGHTS),
        ),
        fingerprints=plan.index.fingerprints,
    )
    payload = RecoverPayload(
        image_set=images,
        groups=shard.groups,
        grids=shard.grids,
        statistics=tuple(Reads.of([entry], STATISTICS) for entry in statistics),
        every_class=tuple(Reads.of(entries, POOLED) for entries in every),
        selection=None if selection is None else Reads.of([selection], SELECTION),
        student=None if student is None else Reads.of([student], WEIGHTS),
        round_start=plan.run.config.round_starts[number - 1],
    )
    return Job(key, shard_name(images, shard), payload)


class RecoverWorker:
    """Makes the images of one class shard."""

    def __init__(self, *, groups: int | None = None, **context: Any) -> None:
        self.context = WorkerContext("recover", **context)
        self.groups = groups
        self._pooled: dict[Reads, Rows] = {}  # of all classes, by the blocks

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
            return done
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

    def _selected(self, reads: Reads | None, *, first: int) -> Callable[[ImageId], int] | None:
        """Return the place of the real image selected for a synthetic one, if any was.

        Args:
            reads: the selection.
            first: ipc_index of the first image of the round.
        """
        if reads is None:
            return None
        selection = read_selection(self.context, reads)
        return lambda image: selection[image.wnid].start_of(image.ipc_index - first)

    def _statistics(
        self, blocks: Sequence[Reads], every: Sequence[Reads]
    ) -> list[TeacherStatistics]:
        """Return the statistics of real images by teacher; none where no term needs them.

        Args:
            blocks: those of the block of classes, by teacher.
            every: those of all blocks, by teacher; empty where no term needs all classes.
        """
        from distill_core.recover.shard import TeacherStatistics

        pools = [self._pool(reads) for reads in every] if every else [None] * len(blocks)
        return [
            TeacherStatistics(self._block(block), pool)
            for block, pool in zip(blocks, pools, strict=True)
        ]

    def _block(self, reads: Reads) -> ClassStatistics:
        shard_store = ShardStore(self.context.run.store, "statistics")
        (marker,) = reads.markers(shard_store, STATISTICS)
        return decode_statistics(shard_store.load(marker, STATISTICS))

    def _pool(self, reads: Reads) -> Rows:
        """Return the statistics of all classes together, from the small files of all blocks."""
        if reads not in self._pooled:
            shard_store = ShardStore(self.context.run.store, "statistics")
            markers = reads.markers(shard_store, POOLED)
            files = (shard_store.load(marker, POOLED) for marker in markers)
            self._pooled[reads] = pooled([decode_pooled(file) for file in files])
        return self._pooled[reads]
