"""The workers that train: one teacher, or one student, per job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distill_core.evaluation.blocks import rows_in_training
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.posttrain import PosttrainPayload
from tasks.stages.squeeze import SqueezePayload
from tasks.stages.training import SharedCheckpoints, Trained, train_and_commit
from tasks.stages.worker import WorkerContext, require

if TYPE_CHECKING:
    from torch import nn

    from distill_core.config.schema import RunConfig
    from distill_core.labels.sources import LabelSource
    from distill_core.posttrain.student import StudentTask
    from distill_core.posttrain.train import TrainedStudent
    from distill_core.squeeze.teacher import SqueezedTeacher
    from distill_core.storage.image_shards import ImageRows
    from distill_core.storage.label_shards import LabelRows
    from distill_core.training.distributed import DistributedContext
    from distill_core.training.streaming import StreamedSplit
    from distill_core.training.supervised import Labelled


class SqueezeWorker:
    """Trains the teacher, or takes it from a file."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("squeeze", **context)

    def peek(self) -> tuple[int, int]:
        """Return (epochs done, epochs in total)."""
        return self.context.current_progress

    def run(self, job: Job[SqueezePayload]) -> Receipt:
        """Write the teacher's files and return their receipt."""
        config = self.context.config.of_teacher(job.payload.teacher)

        def train(checkpoints: SharedCheckpoints, world: DistributedContext) -> Trained:
            teacher = self._teacher(config, checkpoints, world)
            facts = {
                "model": config.squeeze.model.title,
                "accuracy": teacher.accuracy.top1,
                "top5": teacher.accuracy.top5,
                "epochs": len(teacher.curve),
                "curve": list(teacher.curve),
            }
            return Trained(lambda: teacher.files, facts)

        return train_and_commit(self.context, job, train)

    def _teacher(
        self, config: RunConfig, checkpoints: SharedCheckpoints, world: DistributedContext
    ) -> SqueezedTeacher:
        import torch

        from distill_core.squeeze.teacher import import_teacher, train_teacher
        from distill_core.training.supervised import Labelled

        class_hash = self.context.plan.index.class_hash
        test = Labelled(*self.context.split("test"))
        if config.squeeze.training is None or config.squeeze.checkpoint is not None:
            return import_teacher(
                test, run=config, class_hash=class_hash, device=self.context.device
            )
        torch.set_num_threads(config.squeeze.training.threads or config.threads)
        return train_teacher(
            self._images(world),
            test,
            run=config,
            class_hash=class_hash,
            start=self._start(config.squeeze.start),
            device=self.context.device,
            world=world,
            checkpoints=checkpoints,
            progress=self.context.progress,
        )

    def _images(self, world: DistributedContext) -> Labelled | StreamedSplit:
        """Return the images to learn: in memory, or how they are read where they do not fit."""
        from distill_core.training.streaming import StreamedSplit, fits
        from distill_core.training.supervised import Labelled

        real, side = self.context.real, self.context.config.data.side
        if fits(len(real.labels), side, device=self.context.device, processes=world.size):
            return Labelled(real.resident(), real.labels)
        return StreamedSplit(real.at, real.labels)

    def _start(self, key: str | None) -> nn.Module | None:
        """Return the network that training starts from, if it is a teacher of another run."""
        if key is None:
            return None
        from distill_core.models.files import load_model
        from distill_core.models.spec import TeacherSpec

        shard_store = self.context.shard_store
        marker = require(shard_store, key)
        spec = TeacherSpec.from_json(shard_store.load(marker, "json"))
        return load_model(
            shard_store.load(marker, "safetensors"), spec, where=f"squeeze.start = {key}"
        )


class PosttrainWorker:
    """Trains one student on one set, and judges it as it learns."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("posttrain", **context)

    def peek(self) -> tuple[int, int]:
        """Return (epochs done, epochs in total)."""
        return self.context.current_progress

    def run(self, job: Job[PosttrainPayload]) -> Receipt:
        """Write one student's result, last and averaged weights and return their receipt."""
        from distill_core.models.files import save_weights

        def train(checkpoints: SharedCheckpoints, world: DistributedContext) -> Trained:
            student, result = self._student(job, checkpoints, world)
            return Trained(
                lambda: {
                    "result.json": json.dumps(result).encode(),
                    "safetensors": save_weights(student.last),
                    "ema.safetensors": save_weights(student.ema),
                },
                result,
            )

        return train_and_commit(self.context, job, train)

    def _student(
        self, job: Job[PosttrainPayload], checkpoints: SharedCheckpoints, world: DistributedContext
    ) -> tuple[TrainedStudent, dict[str, Any]]:
        """Return a student at the end of its training, and the facts of its cell of the table."""
        from distill_core.posttrain.train import train_student
        from distill_core.training.supervised import Labelled

        shards = [self.context.images(key) for key in job.payload.images]
        rows = rows_in_training(
            self.context.plan.test_images, self.context.config.posttrain.validation_shard
        )
        student = train_student(
            self._task(job),
            _joined(shards),
            self._labels(job, shards),
            Labelled(*self.context.split("test", rows)),
            views=self._views(shards),
            device=self.context.device,
            start=self._start(job),
            checkpoints=checkpoints,
            progress=self.context.progress,
            world=world,
        )
        result = student.result | {"missing": list(job.payload.missing)}
        return student, result if rows is None else result | self._judged_on(rows)

    def _judged_on(self, rows: list[int]) -> dict[str, Any]:
        """Return the words for a part of the test split: all accuracies of the result are on it."""
        whole = self.context.plan.test_images
        return {"judged_on": {"images": len(rows), "of": whole, "rows": "evenly spaced"}}

    def _start(self, job: Job[PosttrainPayload]) -> nn.Module | None:
        """Return the student of the round before, if this one goes on from it."""
        from distill_core.models.files import load_network

        key, rounds = job.payload.start, self.context.config.rounds
        if key is None or rounds is None:
            return None
        weights = self.context.shard_store.load(
            require(self.context.shard_store, key), "safetensors"
        )
        classes = self.context.config.data.num_classes
        return load_network(weights, rounds.student, num_classes=classes)

    def _task(self, job: Job[PosttrainPayload]) -> StudentTask:
        from distill_core.posttrain.student import StudentTask

        config, after = self.context.config, job.payload.round
        config = config if after is None else config.after_round(after)
        student = config.posttrain.students[job.payload.student]
        return StudentTask(config, student, job.payload.seed, job.payload.set_name)

    def _labels(self, job: Job[PosttrainPayload], shards: list[ImageRows]) -> LabelSource:
        """Return where the labels of this set come from."""
        import torch

        from distill_core.labels.sources import OnlineLabels, StoredLabels

        config, seed = self.context.config.relabel, self.context.config.seed
        if job.payload.set_name == "hard_labels":
            return self._views(shards)
        teacher = self.context.labeller
        if self.context.plan.scheme == "online":
            pixels = [torch.from_numpy(rows.pixels).to(self.context.device) for rows in shards]
            named = [(rows.images, part) for rows, part in zip(shards, pixels, strict=True)]
            return OnlineLabels(named, teacher, config, seed)
        head = (teacher.head.weight, teacher.head.bias)
        per_shard = len(job.payload.labels) // len(shards)
        readers = [
            self._reader(job.payload.labels[n * per_shard : (n + 1) * per_shard])
            for n in range(len(shards))
        ]
        return StoredLabels(
            readers,
            [len(rows.images) for rows in shards],
            head,
            self.context.device,
            rest=self.context.config.posttrain.rest,
            half=self.context.config.precision == "bfloat16",
        )

    def _views(self, shards: list[ImageRows]) -> LabelSource:
        """Return the same views without any teacher."""
        from distill_core.labels.sources import ViewsOnly

        config = self.context.config
        images = [rows.images for rows in shards]
        return ViewsOnly(images, config.relabel, config.seed, config.data.side)

    def _reader(self, keys: Sequence[str]) -> Callable[[int], LabelRows]:
        """Return a function that reads one view of one image shard from its label shards."""
        from distill_core.storage.label_shards import decode_labels
        from distill_core.storage.row_groups import RowGroupFile

        shard_store = ShardStore(self.context.run.store, "relabel")
        markers = [require(shard_store, key) for key in keys]
        step = self.context.config.relabel.views_per_shard
        in_order = self.context.config.posttrain.view_order == "cycle"
        opened: dict[int, RowGroupFile] = {}

        def read(view: int) -> LabelRows:
            number = view // step
            if number not in opened:
                if in_order:
                    opened.clear()  # one label shard at a time is enough
                info, marker = (
                    markers[number].file("parquet"),
                    shard_store.marker_path(keys[number]),
                )
                opened[number] = RowGroupFile(shard_store.store, info, marker=marker)
            rows = decode_labels(opened[number], [view], where=opened[number].where)
            opened[number].release()  # one view of every image shard fills the memory as it is
            return rows

        return read


def _joined(shards: list[ImageRows]) -> Labelled:
    """Return the images of all shards, one after another."""
    import numpy as np

    from distill_core.training.supervised import Labelled

    labels = [image.label for rows in shards for image in rows.images]
    return Labelled(np.concatenate([rows.pixels for rows in shards]), np.array(labels, np.int64))
