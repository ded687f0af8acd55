"""The workers that train: one teacher, or one student, per job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill_core.evaluation.blocks import rows_in_training
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.posttrain import PosttrainPayload
from tasks.stages.squeeze import SqueezePayload
from tasks.stages.training import Trained, train_and_commit
from tasks.stages.worker import WorkerContext, require

if TYPE_CHECKING:
    from torch import nn

    from distill_core.labels.reading import ViewReader
    from distill_core.storage.row_groups import RowGroupFile
    from distill_core.training.runtime import TrainingRuntime


class SqueezeWorker:
    """Trains a teacher, or imports it from a file."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("squeeze", **context)

    def peek(self) -> tuple[int, int]:
        """Return (epochs done, epochs in total)."""
        return self.context.current_progress

    def run(self, job: Job[SqueezePayload]) -> Receipt:
        """Write the teacher's files and return their receipt."""
        from distill_core.squeeze.teacher import train_or_import
        from distill_core.training.supervised import Labelled

        config = self.context.config.of_teacher(job.payload.teacher)

        def train(runtime: TrainingRuntime) -> Trained:
            teacher = train_or_import(
                self.context.real,
                Labelled(*self.context.split("test")),
                run=config,
                class_hash=self.context.plan.index.class_hash,
                start=self._start(config.squeeze.start),
                runtime=runtime,
            )
            facts = {
                "model": config.squeeze.model.title,
                "accuracy": teacher.accuracy.top1,
                "top5": teacher.accuracy.top5,
                "epochs": len(teacher.curve),
                "curve": list(teacher.curve),
            }
            return Trained(lambda: teacher.files, facts)

        return train_and_commit(self.context, job, train)

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
    """Trains one student on one set, and evaluates it as it learns."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("posttrain", **context)

    def peek(self) -> tuple[int, int]:
        """Return (epochs done, epochs in total)."""
        return self.context.current_progress

    def run(self, job: Job[PosttrainPayload]) -> Receipt:
        """Write one student's result, last and averaged weights and return their receipt."""
        from distill_core.models.files import save_weights
        from distill_core.posttrain.student import StudentTask
        from distill_core.posttrain.train import SoftLabels, train_on_shards
        from distill_core.training.supervised import Labelled

        payload, config, after = job.payload, self.context.config, job.payload.round
        run = config if after is None else config.after_round(after)
        student = run.posttrain.students[payload.student]
        task = StudentTask(run, student, payload.seed, payload.set_name)
        start, keys, labels = payload.start, payload.images, payload.labels
        missing = {"missing": list(payload.missing)}

        def train(runtime: TrainingRuntime) -> Trained:
            whole = self.context.plan.test_images
            rows = rows_in_training(whole, config.posttrain.validation_shard)
            trained = train_on_shards(
                task,
                [self.context.images(key) for key in keys],
                SoftLabels(lambda: self.context.labeller, self._readers(labels, len(keys))),
                Labelled(*self.context.split("test", rows)),
                start=self._start(start),
                runtime=runtime,
            )
            result = trained.result | missing | _evaluated_on(rows, whole)
            return Trained(
                lambda: {
                    "result.json": json.dumps(result).encode(),
                    "safetensors": save_weights(trained.last),
                    "ema.safetensors": save_weights(trained.ema),
                },
                result,
            )

        return train_and_commit(self.context, job, train)

    def _start(self, key: str | None) -> nn.Module | None:
        """Return the student of the round before, if this one goes on from it."""
        from distill_core.models.files import load_network

        rounds = self.context.config.rounds
        if key is None or rounds is None:
            return None
        shard_store, classes = self.context.shard_store, self.context.config.data.num_classes
        weights = shard_store.load(require(shard_store, key), "safetensors")
        return load_network(weights, rounds.student, num_classes=classes)

    def _readers(self, keys: Sequence[str], shards: int) -> list[ViewReader]:
        """Return the readers of the stored labels by image shard; none if there are no labels.

        Args:
            keys: of all label shards, those of an image shard adjacent.
            shards: image shards.
        """
        width = len(keys) // max(shards, 1)
        if not width:
            return []
        return [self._reader(keys[n * width : (n + 1) * width]) for n in range(shards)]

    def _reader(self, keys: Sequence[str]) -> ViewReader:
        """Return the reader of one image shard's labels from its label shards."""
        from distill_core.labels.reading import view_reader
        from distill_core.storage.row_groups import RowGroupFile

        shard_store, config = ShardStore(self.context.run.store, "relabel"), self.context.config
        infos = [require(shard_store, key).file("parquet") for key in keys]

        def open_file(number: int) -> RowGroupFile:
            marker = shard_store.marker_path(keys[number])
            return RowGroupFile(shard_store.store, infos[number], marker=marker)

        return view_reader(
            open_file,
            views_per_shard=config.relabel.views_per_shard,
            in_order=config.posttrain.view_order == "cycle",
        )


def _evaluated_on(rows: list[int] | None, whole: int) -> dict[str, Any]:
    """Return the facts of a result that is measured on a part of the test split.

    Args:
        rows: the part; None: all of it.
        whole: images of the split.
    """
    if rows is None:
        return {}
    return {"judged_on": {"images": len(rows), "of": whole, "rows": "evenly spaced"}}
