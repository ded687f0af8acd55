"""The relabel stage: one label shard per image shard and range of views."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.keys import relabel_key
from tasks.jobs import Job, Receipt
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.worker import WorkerContext

if TYPE_CHECKING:
    pass

VIEWS = "_v"  # in the name of a label shard: the image shard before, the views after


@dataclass(frozen=True)
class RelabelPayload:
    """The image shard to label, and the range of views."""

    images: str  # key of the image shard
    views: range


def relabel_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per range of views and image shard that a stage covers; none if online."""
    recover = StageId("recover", stage.round)
    image_sets = plan.run.config.image_sets if stage.is_last else ("distilled",)
    if plan.scheme == "online":
        return {stage.of(images): () for images in image_sets}
    return {
        stage.of(images): tuple(
            _relabel_job(plan, entry.shard, entry.key, views)
            for entry in plan.manifest(recover.of(images)).entries
            for views in _view_ranges(plan)
        )
        for images in image_sets
    }


def _relabel_job(plan: RunInputs, shard: str, images: str, views: range) -> Job[RelabelPayload]:
    key = relabel_key(
        plan.run.config,
        scheme=plan.scheme,
        images=images,
        teachers=plan.digests(plan.run.config.relabel.teachers),
        views=views,
    )
    name = f"{shard}{VIEWS}{views.start:04d}-{views.stop - 1:04d}"
    return Job(key, name, RelabelPayload(images, views))


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
