"""A stage that the product does not have: the mean pixel of every image shard."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from distill_core.keys.base import digest_of
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.expected import Expected
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.reads import Reads
from tasks.stages.stage import Stage
from tasks.stages.worker import IMAGES, WorkerContext


@dataclass(frozen=True)
class BrightnessPayload:
    """The image shard to measure."""

    images: Reads


def brightness_jobs(inputs: RunInputs, stage: StageId) -> Jobs:
    """Return one job per distilled image shard."""
    entries = inputs.manifest(StageId("recover")).entries
    return {
        stage: tuple(
            Job(
                digest_of({"stage": stage.kind, "images": entry.content(IMAGES)}),
                f"{entry.shard}_mean",
                BrightnessPayload(Reads.of([entry], IMAGES)),
            )
            for entry in entries
        )
    }


class BrightnessWorker:
    """Measures the mean pixel of one image shard."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("brightness", **context)

    def run(self, job: Job[BrightnessPayload]) -> Receipt:
        """Write the mean pixel of one shard and return the receipt."""
        if done := self.context.begin(job):
            return done
        since, shard_store = time.perf_counter(), ShardStore(self.context.run.store, "recover")
        (images,) = job.payload.images.markers(shard_store, IMAGES)
        rows = self.context.images(images)
        files = {"json": json.dumps(float(rows.pixels.mean())).encode()}
        return self.context.commit(job, files, since=since, rows=len(rows.images), classes=1)


def _expected(expected: Expected, _stage: StageId) -> int:
    return len(expected.shards)


ROW = Stage(
    kind="brightness",
    unit="shards",
    summary="Measure how bright the images are.",
    expected=_expected,
    payload=BrightnessPayload,
    jobs=brightness_jobs,
    less_memory="Make smaller image shards (recover.shard_classes)",
    worker="tests.support.toy_stage:BrightnessWorker",
)
