"""Which stored view of the images an epoch of post-training reads.

Images of one label shard share a view, because a shard is read view by view; a batch mixes shards,
and so views. Every draw is named by (seed, epoch), so it does not depend on what ran before.
"""

from __future__ import annotations

from distill_core.config.schema import RunConfig
from distill_core.config.students import PosttrainConfig
from distill_core.seeds import generator, philox_key


def is_hard(settings: PosttrainConfig, epoch: int) -> bool:
    """Return whether an epoch learns from the classes alone.

    Source: HALD (arXiv:2512.15647), soft, hard, soft.
    """
    first, stop = settings.hard_epochs or (0, 0)
    return first <= epoch < stop


def views_of_epoch(run: RunConfig, epoch: int, *, seed: int, shards: int) -> tuple[int, ...]:
    """Return the view ids that an epoch reads, by image shard.

    Args:
        run: how many views are stored, and in which order they are read.
        epoch: counted from 0.
        seed: of the student.
        shards: image shards of its set.

    Source: LPLD (NeurIPS 2024), a pool of labels drawn from at random. Differs from the published
    code: it draws stored batches, this draws a view for each image shard.
    """
    settings, views = run.posttrain, run.relabel.stored_views
    if is_hard(settings, epoch):
        return (views + epoch,) * shards  # new views: nobody has to have described them
    if settings.view_order == "random":
        rng = generator(philox_key(seed, "posttrain", "pool"), epoch)
        return tuple(rng.integers(views, size=shards).tolist())
    first, stop = settings.hard_epochs or (epoch, epoch)
    soft = epoch if epoch < stop else epoch - (stop - first)
    return (soft % views,) * shards
