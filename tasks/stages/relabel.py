"""The relabel stage: one label shard per image shard and range of views."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from distill_core.keys import relabel_key
from distill_core.storage.manifest import ManifestEntry
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.reads import Reads
from tasks.stages.worker import IMAGES, WorkerContext

LABELS = "parquet"  # suffix of the file of a label shard
VIEWS = "_v"  # in the name of a label shard: the image shard before, the views after


@dataclass(frozen=True)
class RelabelPayload:
    """The image shard to label, and the range of views."""

    images: Reads
    views: range


def relabel_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per range of views and image shard that a stage covers; none if online."""
    recover = StageId("recover", stage.round)
    image_sets = plan.run.config.image_sets if stage.is_last else ("distilled",)
    if plan.scheme == "online":
        return {stage.of(images): () for images in image_sets}
    return {
        stage.of(images): tuple(
            _relabel_job(plan, entry, views)
            for entry in plan.manifest(recover.of(images)).entries
            for views in _view_ranges(plan)
        )
        for images in image_sets
    }


def _relabel_job(plan: RunInputs, images: ManifestEntry, views: range) -> Job[RelabelPayload]:
    key = relabel_key(
        plan.run.config,
        scheme=plan.scheme,
        images=images.content(IMAGES),
        teachers=plan.digests(plan.run.config.relabel.teachers),
        views=views,
    )
    name = f"{images.shard}{VIEWS}{views.start:04d}-{views.stop - 1:04d}"
    return Job(key, name, RelabelPayload(Reads.of([images], IMAGES), views))


def described(label_shard: str) -> str:
    """Return the image shard that a label shard describes, by their names."""
    return label_shard.rpartition(VIEWS)[0]


def _view_ranges(plan: RunInputs) -> list[range]:
    config = plan.run.config.relabel
    total, step = config.stored_views, config.views_per_shard
    return [range(start, min(start + step, total)) for start in range(0, total, step)]


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
            return done
        since = time.perf_counter()
        shard_store, views = ShardStore(self.context.run.store, "recover"), job.payload.views
        (images,) = job.payload.images.markers(shard_store, IMAGES)
        rows = self.context.images(images)
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
            {LABELS: encode_labels(replace(labels, images_sha256=images.file(IMAGES).sha256))},
            since=since,
            rows=len(rows.images) * len(views),
            classes=len({image.label for image in rows.images}),
        )
