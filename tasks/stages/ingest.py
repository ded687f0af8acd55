"""The first stage: read, check and index the images, part by part.

Its shards are not chained to those of later stages by a manifest: what later stages build on is the
index that is merged from them, whose id the record of the run's dataset states.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_core.config.data import DataConfig
from distill_core.config.schema import RunConfig
from distill_core.data.archives import STAGE as FOLDER
from distill_core.data.archives import ArchiveWriter
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import open_index
from distill_core.data.index_merge import merge
from distill_core.data.ingest import IngestPlan, facts_of
from distill_core.data.labels.words import find_words
from distill_core.data.parts.read import read_part
from distill_core.data.parts.rows import PlannedPart
from distill_core.data.readers.record import Part
from distill_core.errors import DataError
from distill_core.progress import Notice
from distill_core.selection.distinct import starts_from_whole_images, too_small
from distill_core.squeeze.import_check import can_be_judged
from distill_core.storage.store import Store
from tasks.jobs import Job, Receipt
from tasks.stages.dataset_record import FILE, read_dataset_record, record_dataset
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.worker import WorkerContext

STAGE = StageId(FOLDER)
IMAGE_SETS = {
    "distilled": "the real images that the images start from",
    "random_real": "the random real images of the baseline",
}


@dataclass(frozen=True)
class IngestPayload:
    """The part to read."""

    part: Part
    classes: tuple[str, ...]  # by label, where labels are numbers
    previous: str | None  # dataset whose rows are taken over where files have not changed


def ingest_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per part of the dataset; its listings are read for them."""
    return {stage: jobs_of(plan.ingest)}


def jobs_of(plan: IngestPlan) -> tuple[Job[IngestPayload], ...]:
    """Return one job per part of a dataset."""
    previous = None if plan.previous is None else plan.previous.id
    return tuple(
        Job(each.key, each.part.name, IngestPayload(each.part, each.classes, previous))
        for each in plan.parts
    )


def ingest_notices(plan: RunInputs) -> list[str]:
    """Return sentences about files that are passed over."""
    return plan.ingest.notices()


def finish_ingest(plan: RunInputs, jobs: Jobs, notice: Notice) -> None:
    """Merge the shards of a run into its index, and declare the stage done.

    Raises:
        DataError: the dataset is refused, or the index was deleted, and the dataset has changed
            since it was made.
    """
    run, before = plan.run, read_dataset_record(plan.run)
    index = merge_index(run.config, run.store, plan.ingest, jobs[STAGE], notice)
    if before is not None and before.dataset != index.id:
        raise DataError(
            f"{run.store.uri(run.path(FILE))}: states dataset {before.dataset}, but the images are "
            f"those of {index.id} now. Restore them, or register the config under another --name."
        )
    record_dataset(run, index)


def merge_index(
    config: RunConfig,
    store: Store,
    plan: IngestPlan,
    jobs: Sequence[Job[IngestPayload]],
    notice: Notice,
) -> DatasetIndex:
    """Return the index of a dataset whose parts are finished, and report what deserves attention.

    See `distill_core.data.index_merge.merge`.
    """
    parts = [PlannedPart(job.payload.part, job.key) for job in jobs]
    index = merge(config.data, store, plan.names, parts, known=plan.known, notice=notice)
    for text in (*_repeated_images(config, index), *_unjudged_teachers(config, index)):
        notice(text)
    return index


def changing(config: DataConfig) -> DataError:
    """Return the error about a dataset that something writes to."""
    return DataError(
        f"{config.path or config.format}: the dataset changed each time it was listed. "
        "Run again when nothing writes to it; what was read is kept."
    )


class IngestWorker:
    """Reads, hashes and decodes the images of one part."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("ingest", **context)
        self._previous: DatasetIndex | None = None

    def peek(self) -> tuple[int, int]:
        """Return (images done, images in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[IngestPayload]) -> Receipt:
        """Write the rows of one part and return the receipt."""
        if done := self.context.begin(job):
            return done
        since, payload, data = time.perf_counter(), job.payload, self.context.config.data
        rows = read_part(
            data,
            payload.part,
            payload.classes,
            previous=self._index(payload.previous),
            archive=ArchiveWriter(self.context.shard_store, job.key, payload.part.name),
            progress=self.context.progress,
        )
        return self.context.commit(job, rows.files(), since=since, **facts_of(rows))

    def _index(self, dataset: str | None) -> DatasetIndex | None:
        if dataset is not None and (self._previous is None or self._previous.id != dataset):
            self._previous = open_index(self.context.run.store, dataset)
        return self._previous if dataset is not None else None


def _repeated_images(config: RunConfig, index: DatasetIndex) -> list[str]:
    """Return a sentence if a class has too few images for the real images that a run wants."""
    sets = [s for s in config.image_sets if starts_from_whole_images(config.recover_for(s))]
    sizes = index.class_sizes("train")
    small = too_small(np.array(list(sizes.values())), ipc=config.ipc)
    if not sets or not len(small):
        return []
    name = list(sizes)[small[0]]
    title = find_words(config.data, index.class_names).title(name)
    few, wanted = f"{len(small):,} of {len(sizes):,} classes", f"ipc = {config.ipc}"
    repeat = " and ".join(IMAGE_SETS[image_set] for image_set in sets)
    return [
        f"{few} have fewer training images than {wanted}, the smallest, {title!r}, has "
        f"{sizes[name]:,}: {repeat} repeat images. Lower ipc, or add images."
    ]


def _unjudged_teachers(config: RunConfig, index: DatasetIndex) -> list[str]:
    """Return a sentence if a teacher is imported whose accuracy the test images cannot show."""
    members = [config.squeeze.member(number) for number in range(1 + len(config.squeeze.pool))]
    if not any(member.checkpoint is not None for member in members):
        return []
    sizes = list(index.class_sizes("test").values())
    if can_be_judged(np.repeat(np.arange(len(sizes)), sizes)):
        return []
    accepted = (
        "The imported teacher is accepted; make sure that it knows these classes in this order."
    )
    if not sum(sizes):
        return [f"there are no test images to judge the teacher by. {accepted}"]
    return [
        f"too few test images to judge the teacher: of {sum(sizes):,}, the largest class has "
        f"{max(sizes):,}, and even a perfect teacher cannot be told from guesses. {accepted}"
    ]
