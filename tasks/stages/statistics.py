"""The statistics stage: how a teacher responds to the real images of each class."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from distill_core.keys import statistics_key
from distill_core.sharding import Group
from distill_core.storage.manifest import ManifestEntry
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.statistics_files import (
    OF_TEACHER,
    ClassStatistics,
    decode_statistics,
    encode_block,
)
from tasks.jobs import Job, Receipt
from tasks.stages.inputs import Block, Jobs, RunInputs, block_name, classes_of, first_images
from tasks.stages.names import StageId
from tasks.stages.reads import check_digest
from tasks.stages.worker import WorkerContext


@dataclass(frozen=True)
class StatisticsPayload:
    """The block of classes to measure, and the teacher."""

    classes: Group
    teacher: int
    imported: str | None = None  # sha256 of the statistics that were imported with the teacher


def statistics_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per teacher and block of classes."""
    return {
        stage: tuple(
            Job(
                key,
                statistics_name(block, teacher),
                StatisticsPayload(classes_of(block), teacher, _imported(plan, teacher)),
            )
            for teacher in plan.run.config.recover.teachers
            for block, key in statistics_keys(plan, teacher).items()
        )
    }


def made_statistics(plan: RunInputs, teacher: int) -> dict[Block, ManifestEntry]:
    """Return the measured class statistics of a teacher by block, without those given up.

    Raises:
        NotReady: the stage is not complete yet.
    """
    keys = statistics_keys(plan, teacher)
    names = {statistics_name(block, teacher): block for block in keys}
    planned = {name: keys[block] for name, block in names.items()}
    made = plan.made(StageId("statistics"), planned)
    return {names[name]: entry for name, entry in made.items()}


def statistics_keys(plan: RunInputs, teacher: int) -> dict[Block, str]:
    """Return the key of what each block's classes do to a teacher."""
    blocks = dict.fromkeys(first_images(shard) for shard in plan.shards)
    config = plan.run.config.recover
    rankers = config.teachers[:1] if "originals" in config.measured else ()
    return {
        block: statistics_key(
            plan.run.config,
            [image.wnid for image in block],
            teachers=plan.digests([teacher, *rankers]),
            fingerprints=plan.index.fingerprints,
            labels=[image.label for image in block],
            imported=_imported(plan, teacher),
        )
        for block in blocks
    }


def _imported(plan: RunInputs, teacher: int) -> str | None:
    """Return the sha256 of the statistics that were imported with a teacher and are used.

    A teacher that an older version imported has none, so they are measured as they were then.
    """
    config = plan.run.config
    imported = config.squeeze.member(teacher).imported
    if "batch_norms" not in config.recover.measured:
        return None
    if imported is not None and not imported.class_statistics:
        return None
    files = {info.suffix: info.sha256 for info in plan.teachers[teacher].files}
    return files.get(OF_TEACHER)


def statistics_name(block: Block, teacher: int) -> str:
    """Return the name of the statistics of one block under one teacher."""
    name = block_name(block)
    return f"{name}_t{teacher}" if teacher else name


class StatisticsWorker:
    """Measures the real images of each class of a block under one teacher."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("statistics", **context)

    def peek(self) -> tuple[int, int]:
        """Return (classes done, classes in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[StatisticsPayload]) -> Receipt:
        """Write the statistics of one block and return the receipt."""
        from distill_core.statistics.measure import MeasureSetup, measure_block

        if done := self.context.begin(job):
            return done
        since, payload, config = time.perf_counter(), job.payload, self.context.config
        setup = MeasureSetup(
            config.recover,
            teacher=self.context.teacher(payload.teacher),
            scorer=self.context.teacher(config.recover.teachers[0]),
            seed=config.seed,
            imported=self._imported(payload),
        )
        measured = measure_block(
            payload.classes, self.context.class_images, setup, progress=self.context.progress
        )
        return self.context.commit(
            job,
            encode_block(measured, config.recover),
            since=since,
            rows=len(measured),
            classes=len(measured),
        )

    def _imported(self, payload: StatisticsPayload) -> ClassStatistics | None:
        """Return the statistics that were imported with the teacher, checked against the plan."""
        if payload.imported is None:
            return None
        store = self.context.run.store
        marker = self.context.plan.teachers[payload.teacher]
        check_digest(marker, OF_TEACHER, payload.imported, store.uri("squeeze"))
        return decode_statistics(ShardStore(store, "squeeze").load(marker, OF_TEACHER))
