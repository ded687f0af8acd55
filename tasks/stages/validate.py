"""The validate stage: finished students evaluated on blocks of the real test split."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill_core.evaluation.accuracy import total
from distill_core.evaluation.blocks import validation_blocks
from distill_core.keys import validate_key
from distill_core.storage.manifest import ManifestEntry
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.run import Run
from tasks.stages.inputs import Jobs, NotReady, RunInputs, test_images_of
from tasks.stages.names import StageId
from tasks.stages.posttrain import PosttrainPayload, posttrain_jobs
from tasks.stages.reads import Reads
from tasks.stages.worker import WorkerContext

if TYPE_CHECKING:
    import numpy as np

    from distill_core.data.streamed import StreamedImages

# Suffix of the file of each set of weights of a trained student.
WEIGHTS_FILES: Mapping[str, str] = {"last": "safetensors", "ema": "ema.safetensors"}


@dataclass(frozen=True)
class ValidatePayload:
    """The student to evaluate, and the block of test images."""

    student: int  # number of the student in the config
    weights: Reads  # the trained student
    rows: range  # among the readable test images


def judged_in_blocks(run: Run) -> bool:
    """Return whether the final judgement is a stage; until the dataset is known, it may be."""
    try:
        images = test_images_of(run)
    except NotReady:
        return True
    return bool(validation_blocks(images, run.config.posttrain.validation_shard))


def validate_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per student and block of test images."""
    blocks = validation_blocks(plan.test_images, plan.run.config.posttrain.validation_shard)
    posttrain = StageId("posttrain")
    trained = {entry.key: entry for entry in plan.manifest(posttrain).entries}
    students = [job for job in posttrain_jobs(plan, posttrain)[posttrain] if job.key in trained]
    jobs = (
        _validate_job(plan, student, trained[student.key], rows)
        for student in students
        for rows in blocks
    )
    return {stage: tuple(jobs)}


def _validate_job(
    plan: RunInputs, student: Job[PosttrainPayload], trained: ManifestEntry, rows: range
) -> Job[ValidatePayload]:
    files = tuple(WEIGHTS_FILES.values())
    weights = trained.content(*files) if trained.keyed_by_content else None
    key = validate_key(plan.run.config, student=student.key, weights=weights, rows=rows)
    payload = ValidatePayload(student.payload.student, Reads.of([trained], *files), rows)
    return Job(key, f"{student.shard}_t{rows.start:07d}-{rows.stop - 1:07d}", payload)


class ValidateWorker:
    """Counts the hits of a student on one block of images, with its last and averaged weights."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("validate", **context)
        self._weights: tuple[Reads, Mapping[str, bytes]] | None = None  # of the last student

    def peek(self) -> tuple[int, int]:
        """Return (images done, images in total) of the current job, once per weights."""
        return self.context.current_progress

    def run(self, job: Job[ValidatePayload]) -> Receipt:
        """Write the counts of one student on one block and return the receipt."""
        from distill_core.evaluation.validate import encode_counts, validate_student

        if done := self.context.begin(job):
            return done
        since, payload, config = time.perf_counter(), job.payload, self.context.config
        rows = payload.rows
        images, labels = self._images(rows)
        counted = validate_student(
            self._read(payload.weights),
            images,
            labels,
            student=config.posttrain.students[payload.student],
            data=config.data,
            device=self.context.device,
            progress=self.context.progress,
        )
        sums = {name: asdict(total(counts)) for name, counts in counted.items()}
        return self.context.commit(
            job,
            {"json": encode_counts(counted)},
            since=since,
            rows=len(rows),
            classes=len(counted["last"]),
            summary={
                "weights": payload.weights.keys[0],
                "rows": [rows.start, rows.stop],
                "of": self.context.plan.test_images,
                **sums,
            },
        )

    def _images(self, rows: range) -> tuple[StreamedImages, np.ndarray]:
        """Return images of the test split, which are read as they are used, and their labels."""
        from distill_core.data.real_images import RealImages
        from distill_core.data.streamed import StreamedImages
        from distill_core.evaluation.validate import COUNTED_IMAGES

        data, index = self.context.config.data, self.context.plan.index
        part = slice(rows.start, rows.stop)
        images = RealImages(data, index, "test", repeated=True)
        places = index.readable("test")[part]
        streamed = StreamedImages(places, images.pixels, side=data.side, batch=COUNTED_IMAGES)
        return streamed, images.labels[part]

    def _read(self, reads: Reads) -> Mapping[str, bytes]:
        """Return a student's weights by name; its blocks follow one another."""
        if self._weights is None or self._weights[0] != reads:
            shard_store = ShardStore(self.context.run.store, "posttrain")
            (marker,) = reads.markers(shard_store, *WEIGHTS_FILES.values())
            self._weights = (
                reads,
                {n: shard_store.load(marker, suffix) for n, suffix in WEIGHTS_FILES.items()},
            )
        return self._weights[1]
