"""The workers that make shards: plain classes, one shard per job.

The same class runs in this process, in a spawned process and as a Ray actor. Its constructor gets
plain strings and loads teachers from storage itself; `run` reads its marker first, returns a
receipt, and is idempotent. Torch is imported inside the methods: the driver has none.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distill_core.sharding import Batch, ImageId, batches_of
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.recover import RecoverPayload
from tasks.stages.relabel import RelabelPayload
from tasks.stages.select_worker import read_selection
from tasks.stages.statistics import POOLED
from tasks.stages.worker import WorkerContext, receipt, require

if TYPE_CHECKING:
    from distill_core.config.recovery import RecoverConfig
    from distill_core.recover.batch import RecoveredBatch
    from distill_core.selection.starts import Starts
    from distill_core.storage.statistics_files import ClassStatistics, Expected, Rows


class RecoverWorker:
    """Makes the images of one class shard."""

    def __init__(self, *, groups: int | None = None, **context: Any) -> None:
        self.context = WorkerContext("recover", **context)
        self.groups = groups
        self._statistics: dict[str, ClassStatistics] = {}  # by key, of the current job
        self._every: dict[tuple[str, ...], Rows] = {}  # of all classes, by the keys of their blocks

    def peek(self) -> tuple[int, int]:
        """Return (steps done, steps in total) of the current job."""
        return self.context.current_progress

    def run(self, job: Job[RecoverPayload]) -> Receipt:
        """Write one image shard and return its receipt."""
        if done := self.context.begin(job):
            return receipt(done, won=False)
        since, self._statistics = time.perf_counter(), {}
        batches = batches_of(job.payload.groups, job.payload.grids)
        recovered = self._recover(job, batches)
        return self.context.commit(
            job,
            {"parquet": self._images(batches, recovered), "trace.json": trace(batches, recovered)},
            since=since,
            rows=sum(map(len, batches)),
            classes=len({image.label for batch in batches for image in batch}),
            summary=recovered[-1].trace[-1] if recovered[-1].trace else {},
        )

    def _recover(self, job: Job[RecoverPayload], batches: Sequence[Batch]) -> list[RecoveredBatch]:
        """Make the images of every batch, launch by launch."""
        from distill_core.recover.batching import launch_size, launches

        config = self.context.config.recover_for(job.payload.image_set)
        fitting = launch_size(
            batches[0], side=self.context.config.data.side, device=self.context.device
        )
        size = min(self.groups or fitting, len(batches))
        starts = self._starts(batches, job, config)
        made: list[RecoveredBatch] = []
        for launch in launches(batches, config, groups=max(1, size // job.split)):
            together = [batches[number] for number in launch]
            made += self._launch(together, job, starts, done=len(made), total=len(batches))
        return made

    def _launch(
        self,
        batches: Sequence[Batch],
        job: Job[RecoverPayload],
        starts: Starts,
        *,
        done: int,
        total: int,
    ) -> tuple[RecoveredBatch, ...]:
        from distill_core.recover.optimise import recover_together

        def progress(steps: int, of: int) -> None:
            self.context.progress(done * of + len(batches) * steps, total * of)

        config = starts.config
        return recover_together(
            batches,
            config=config,
            teachers=[self.context.teacher(number) for number in config.teachers],
            seed=self.context.config.seed,
            starts=[starts.of(batch) for batch in batches],
            device=self.context.device,
            expected=[self._expected(batch, config, job) for batch in batches],
            student=self.context.student(job.payload.student),
            progress=progress,
        )

    def _expected(
        self, batch: Batch, config: RecoverConfig, job: Job[RecoverPayload]
    ) -> list[Expected]:
        """Return what terms hold a batch against, by teacher; empty where none asks."""
        every = job.payload.every_class or [()] * len(job.payload.statistics)
        return [
            self._block(key).of(batch, config, self._every_class(keys) if keys else None)
            for key, keys in zip(job.payload.statistics, every, strict=True)
        ]

    def _block(self, key: str) -> ClassStatistics:
        from distill_core.storage.statistics_files import decode_statistics

        if key not in self._statistics:
            shard_store = ShardStore(self.context.run.store, "statistics")
            file = shard_store.load(require(shard_store, key), "safetensors")
            self._statistics[key] = decode_statistics(file)
        return self._statistics[key]

    def _every_class(self, keys: tuple[str, ...]) -> Rows:
        """Return what all classes together do to a teacher; the small files of all blocks."""
        from distill_core.storage.statistics_files import decode_pooled, pooled

        if keys not in self._every:
            shard_store = ShardStore(self.context.run.store, "statistics")
            files = (shard_store.load(require(shard_store, key), POOLED) for key in keys)
            self._every[keys] = pooled([decode_pooled(file) for file in files])
        return self._every[keys]

    def _starts(
        self, batches: Sequence[Batch], job: Job[RecoverPayload], config: RecoverConfig
    ) -> Starts:
        """Return where the images of a shard start."""
        from distill_core.selection.starts import Starts

        return Starts(
            config,
            seed=self.context.config.seed,
            rows_of=lambda label: self.context.plan.index.rows_of("train", label),
            pixels_of=lambda rows: self.context.real.pixels(rows),
            teacher=lambda: self.context.teacher(config.teachers[0]),
            device=self.context.device,
            reach=1 + max(image.ipc_index for batch in batches for image in batch),
            judged=self._judged(job),
        )

    def _judged(self, job: Job[RecoverPayload]) -> Callable[[ImageId], int] | None:
        """Return which real image was chosen for a synthetic one, if any was."""
        key, first = job.payload.selection, job.payload.round_start
        if key is None:
            return None
        chosen = read_selection(self.context, key)
        return lambda image: chosen[image.wnid].start_of(image.ipc_index - first)

    def _images(self, batches: Sequence[Batch], recovered: list[RecoveredBatch]) -> bytes:
        import numpy as np

        from distill_core.storage.image_shards import ImageRows, encode_images

        images = [image for batch in batches for image in batch]
        pixels = np.concatenate([part.pixels for part in recovered])
        losses = {
            name: np.concatenate([part.losses[name] for part in recovered])
            for name in recovered[0].losses
        }
        order = sorted(range(len(images)), key=lambda n: (images[n].label, images[n].ipc_index))
        rows = ImageRows(tuple(images[n] for n in order), pixels[order])
        return encode_images(
            rows,
            encoding=self.context.config.recover.encoding,
            losses={name: values[order] for name, values in losses.items()},
        )


class RelabelWorker:
    """Describes a range of views of one image shard."""

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
            return receipt(done, won=False)
        since = time.perf_counter()
        rows, views = self.context.images(job.payload.images), job.payload.views
        labels = relabel_shard(
            rows,
            views,
            config=self.context.config.relabel,
            teacher=self.context.labeller,
            seed=self.context.config.seed,
            device=self.context.device,
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


def trace(batches: Sequence[Batch], recovered: list[RecoveredBatch]) -> bytes:
    """Return the loss curves of every batch and the evolution of the first image, as JSON."""
    from distill_core.storage.image_shards import encode_pixels

    first = batches[0][0]
    record = {
        "batches": [
            {"images": [[i.wnid, i.ipc_index] for i in batch], "trace": list(part.trace)}
            for batch, part in zip(batches, recovered, strict=True)
        ],
        "snapshots": [
            {
                "wnid": first.wnid,
                "ipc_index": first.ipc_index,
                "step": step,
                "low": low,
                "png": base64.b64encode(encode_pixels(pixels, "png")).decode(),
            }
            for step, low, pixels in recovered[0].snapshots
        ],
    }
    return json.dumps(record, separators=(",", ":")).encode()
