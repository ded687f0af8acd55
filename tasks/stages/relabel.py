"""The jobs that describe images: one per image shard and range of views."""

from __future__ import annotations

from distill_core.keys import relabel_key
from tasks.jobs import Job
from tasks.stages.inputs import Jobs, RunInputs, manifest_name
from tasks.stages.names import in_round, is_last

VIEWS = "_v"  # in the name of a label shard: the image shard before, the views after


def relabel_jobs(plan: RunInputs, number: int) -> Jobs:
    """Return one job per range of views and image shard of the first rounds; none if online."""
    recover, relabel = (in_round(plan.run.config, kind, number) for kind in ("recover", "relabel"))
    sets = plan.image_sets if is_last(relabel) else ("distilled",)
    if plan.scheme == "online":
        return {manifest_name(relabel, images): () for images in sets}
    return {
        manifest_name(relabel, images): tuple(
            _relabel_job(plan, entry.shard, entry.key, views)
            for entry in plan.manifest(manifest_name(recover, images)).entries
            for views in _view_ranges(plan)
        )
        for images in sets
    }


def _relabel_job(plan: RunInputs, shard: str, images: str, views: range) -> Job:
    key = relabel_key(
        plan.run.config,
        scheme=plan.scheme,
        images=images,
        teachers=plan.digests(plan.run.config.relabel.teachers),
        views=views,
    )
    name = f"{shard}{VIEWS}{views.start:04d}-{views.stop - 1:04d}"
    return Job(key, name, {"images": images, "views": [views.start, views.stop]})


def described(label_shard: str) -> str:
    """Return the image shard that a label shard describes, by their names."""
    return label_shard.rpartition(VIEWS)[0]


def _view_ranges(plan: RunInputs) -> list[range]:
    config = plan.run.config.relabel
    total, step = config.stored_views, config.views_per_shard
    return [range(start, min(start + step, total)) for start in range(0, total, step)]
