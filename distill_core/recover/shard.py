"""The images of one class shard: from its batches to the rows of its file.

Axes: N images of the shard, B of a batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distill_core.progress import Progress, silent
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.batching import LaunchLimit, launches
from distill_core.recover.optimise import recover_together
from distill_core.recover.setup import RecoverySetup
from distill_core.selection.class_images import ClassImages
from distill_core.selection.starts import Starts
from distill_core.sharding import Batch, ImageId
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.statistics_files import ClassStatistics, Expected, Rows


@dataclass(frozen=True)
class TeacherStatistics:
    """Statistics of real images under one teacher."""

    classes: ClassStatistics  # of each class of the shard
    every_class: Rows | None = None  # of all classes of the dataset together, where terms need it

    def of(self, batch: Batch, setup: RecoverySetup) -> Expected:
        """Return what the terms compare a batch with."""
        return self.classes.of(batch, setup.config, self.every_class)


@dataclass(frozen=True, eq=False)
class RecoveredShard:
    """The images of one class shard, in storage order, and the batches they were made in."""

    rows: ImageRows  # by class, then by ipc_index
    losses: Mapping[str, np.ndarray]  # final value of each loss, (N,) float32, in that order
    batches: tuple[RecoveredBatch, ...]  # in plan order, with their traces


def recover_shard(
    batches: Sequence[Batch],
    setup: RecoverySetup,
    *,
    real: ClassImages | None = None,
    selected: Callable[[ImageId], int] | None = None,
    statistics: Sequence[TeacherStatistics] = (),
    limit: LaunchLimit = LaunchLimit(),
    progress: Progress = silent,
) -> RecoveredShard:
    """Make the images of a class shard, launch by launch; the same arguments give the same bytes.

    Args:
        batches: which images share a batch, in plan order; see `distill_core.sharding`.
        setup: config, teachers and seed of the recovery.
        real: real images, for configs whose `init` starts from them.
        selected: synthetic image -> place of a real one in its class, for `init: judged`.
        statistics: of real images, by teacher, for the terms that compare with them.
        limit: how many batches may go through the teacher together; a matter of speed.
        progress: called with (steps done, steps in total), summed over the batches.

    Raises:
        ConfigError: the config needs real images, or statistics of them, and there are none.
        DataError: a class has no real image, or no statistics.
        DivergedError: a loss or an image stopped being finite.
    """
    starts = Starts(
        setup.config,
        setup.seed,
        setup.teachers[0],
        images=real,
        selected=selected,
        reach=1 + max(image.ipc_index for batch in batches for image in batch),
    )
    size = limit.size(batches, side=setup.side, device=setup.like.device)
    recovered: list[RecoveredBatch] = []
    for launch in launches(batches, setup.config, groups=size):
        together = [batches[number] for number in launch]
        recovered += recover_together(
            together,
            setup,
            starts=[starts.of(batch) for batch in together],
            real=[[of_teacher.of(batch, setup) for of_teacher in statistics] for batch in together],
            progress=_share(progress, done=len(recovered), part=len(launch), total=len(batches)),
        )
    return _in_storage_order(tuple(recovered))


def _share(progress: Progress, *, done: int, part: int, total: int) -> Progress:
    """Return the progress of some batches as that of all of them."""
    return lambda step, steps: progress(done * steps + part * step, total * steps)


def _in_storage_order(batches: tuple[RecoveredBatch, ...]) -> RecoveredShard:
    images = [image for batch in batches for image in batch.images]
    order = sorted(range(len(images)), key=lambda n: (images[n].label, images[n].ipc_index))
    pixels = np.concatenate([batch.pixels for batch in batches])
    losses = {
        name: np.concatenate([batch.losses[name] for batch in batches])[order]
        for name in batches[0].losses
    }
    return RecoveredShard(
        ImageRows(tuple(images[n] for n in order), pixels[order]), losses, batches
    )
