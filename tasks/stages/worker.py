"""The context that all workers share: run, store, device, progress, and the commit of a shard.

Heavy imports stand inside the methods: the driver imports the worker modules to name the classes,
and has no torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from distill_core.allocator import keep_freed_memory
from distill_core.config.schema import RunConfig
from distill_core.environment import made_with, set_backend_flags
from distill_core.storage.markers import Marker, ShardFacts
from distill_core.storage.patience import OUTAGE_SECONDS, Patience
from distill_core.storage.requests import requests_of_process
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job, Receipt
from tasks.run import Run
from tasks.stages.finished import FinishedShard, FinishedShards, WaitLimits
from tasks.stages.inputs import RunInputs
from tasks.stages.reads import Reads, check_weights

if TYPE_CHECKING:
    import numpy as np

    from distill_core.data.real_images import RealImages
    from distill_core.models.ensemble import Ensemble
    from distill_core.models.teacher import FrozenTeacher
    from distill_core.selection.class_images import ClassImages
    from distill_core.storage.image_shards import ImageRows

logger = logging.getLogger(__name__)
NOTICES = 20  # in a receipt, the last ones


IMAGES = "parquet"  # suffix of the images of an image shard
WEIGHTS = "safetensors"  # suffix of the weights of a teacher or a student


@dataclass(frozen=True)
class Planned:
    """What the driver knows of a stage and its workers need."""

    outage_seconds: float = OUTAGE_SECONDS  # that the store may be away
    job_timeout_seconds: float | None = None  # the dispatcher then kills the worker
    checkpoint_every: str | None = None  # e.g. "10 minutes": states of a teacher inside an epoch
    # sha256 of the weights of the teachers, by number, which the keys of the jobs contain. Before
    # the teachers exist, none.
    teachers: Sequence[str] = ()


class WorkerContext:
    """The run, the store, the device and the progress of a worker."""

    def __init__(
        self,
        stage: str,
        *,
        run: str,
        name: str,
        store: str,
        device: str,
        single_writer: bool = False,
        planned: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare a worker.

        Args:
            stage: kind of the stage.
            run: the config of the run, as JSON.
            name: of the run.
            store: its address.
            device: "cpu" or "cuda".
            single_writer: see `Store`.
            planned: fields of `Planned` that differ from their defaults.
        """
        import torch

        self.config = RunConfig.model_validate_json(run)
        # The driver has checked the records of the run, those of older versions included.
        place = Store(store, single_writer=single_writer)
        self.run = Run(name, self.config, place, sealed=False)
        self.shard_store = ShardStore(self.run.store, stage)
        self.device = device
        self.plan = RunInputs(self.run)
        self.current_progress: tuple[int, int] = (0, 0)
        self.notices: list[str] = []  # of the current job
        self.planned = Planned(**(planned or {}))
        self._finished = FinishedShards(self.shard_store, self.notice)
        self._teachers: dict[int, FrozenTeacher] = {}
        self._students: dict[Reads, FrozenTeacher] = {}
        torch.set_num_threads(self.config.threads)
        set_backend_flags()
        keep_freed_memory()

    def progress(self, done: int, total: int) -> None:
        """Note how far the current job is."""
        self.current_progress = (done, total)

    def notice(self, text: str) -> None:
        """Log a sentence about something that does not stop the job, and put it in its receipt."""
        self.notices.append(text)
        logger.warning(text)

    def begin(self, job: Job[Any]) -> Receipt | None:
        """Prepare this thread for a job; return its receipt if it is in the store already.

        In a gang the first process looks, and all believe it.
        """
        import torch

        from distill_core.training.distributed import DistributedContext

        torch.set_num_threads(self.config.threads)  # actors may run each call in another thread
        self.current_progress = (0, 0)
        self.notices.clear()
        return DistributedContext.current().broadcast(lambda: self._finished.committed(job.key))

    def commit(
        self, job: Job[Any], files: Mapping[str, bytes], *, since: float, **facts: Any
    ) -> Receipt:
        """Publish a shard, waiting while the store is away, and report who won.

        Args:
            job: of the shard.
            files: whole contents by suffix.
            since: when the job started, by `time.perf_counter`.
            facts: see `ShardFacts`.
        """
        from distill_core.training.distributed import DistributedContext

        seconds = time.perf_counter() - since
        finished = FinishedShard(
            job.key,
            job.shard,
            files,
            ShardFacts(
                seconds=seconds,
                device=self.device,
                made_with=made_with(self.device),
                **facts,
            ),
        )
        gang = DistributedContext.current().size > 1
        return self.noted(self._finished.commit(finished, self.patience(seconds, gang=gang)))

    def patience(self, seconds: float, *, gang: bool = False) -> Patience:
        """Return how long a job that has taken some seconds waits for the store."""
        limits = WaitLimits(self.planned.outage_seconds, self.planned.job_timeout_seconds)
        return limits.patience(seconds, gang=gang)

    def noted(self, committed: Receipt) -> Receipt:
        """Return a receipt with the notices of the current job, and the requests that it took."""
        return replace(
            committed,
            notices=tuple(self.notices[-NOTICES:]),
            requests=requests_of_process.taken(),
            traffic=requests_of_process.taken_bytes(),
        )

    def teacher(self, number: int = 0) -> FrozenTeacher:
        """Return one of the run's teachers, read from storage and checked against its marker.

        Raises:
            ShardError: it is not the one that the jobs were planned with.
        """
        if number not in self._teachers:
            marker = self.plan.teachers[number]
            if digests := self.planned.teachers:
                check_weights(marker, digests[number], self.run.store.uri("squeeze"))
            self._teachers[number] = self._load_teacher(marker)
        return self._teachers[number]

    def _load_teacher(self, marker: Marker) -> FrozenTeacher:
        from distill_core.models.files import load_teacher

        shard_store = ShardStore(self.run.store, "squeeze")
        return load_teacher(
            shard_store.load(marker, "safetensors"),
            shard_store.load(marker, "json"),
            device=self.device,
            precision=self.config.precision,
        )

    def student(self, reads: Reads | None) -> FrozenTeacher | None:
        """Return the student that a round asks; None where there is none yet."""
        if reads is None:
            return None
        if reads not in self._students:
            from distill_core.models.files import load_student

            shard_store, rounds = ShardStore(self.run.store, "posttrain"), self.config.rounds
            assert rounds is not None
            (marker,) = reads.markers(shard_store, WEIGHTS)
            self._students[reads] = load_student(
                shard_store.load(marker, WEIGHTS),
                rounds.student,
                self.teacher(),
                precision=self.config.precision,
            )
        return self._students[reads]

    @cached_property
    def labeller(self) -> FrozenTeacher | Ensemble:
        """Return the teacher that labels, or those that label together."""
        from distill_core.models.ensemble import as_ensemble

        relabel = self.config.relabel
        return as_ensemble([self.teacher(n) for n in relabel.teachers], relabel.weighting)

    @cached_property
    def real(self) -> RealImages:
        """Return the real training images, read as they are asked for."""
        from distill_core.data.real_images import RealImages

        return RealImages(self.config.data, self.plan.index, "train")

    @cached_property
    def class_images(self) -> ClassImages:
        """Return the real training images by class; none is read before it is needed."""
        from distill_core.selection.class_images import ClassImages

        return ClassImages(
            rows_of=lambda label: self.plan.index.rows_of("train", label),
            pixels_of=lambda rows: self.real.pixels(rows),
            side=self.config.data.side,
        )

    def images(self, marker: Marker) -> ImageRows:
        """Return a committed image shard, decoded."""
        from distill_core.storage.image_shards import decode_images

        return decode_images(ShardStore(self.run.store, "recover").load(marker, IMAGES))

    def split(
        self, name: Literal["train", "test"], rows: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels and labels of real images of a split.

        Args:
            name: which split.
            rows: places among its readable images; None: all of them.
        """
        from distill_core.data.real_images import RealImages  # reads nothing before it is asked

        images = RealImages(self.config.data, self.plan.index, name, repeated=True)
        if rows is None:
            return images.resident(), images.labels
        return images.pixels(self.plan.index.readable(name)[list(rows)]), images.labels[list(rows)]
