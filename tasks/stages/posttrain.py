"""The post-train stage: one student per network, seed and set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_core.config.schema import RunConfig
from distill_core.config.students import SetName
from distill_core.data.index import DatasetIndex
from distill_core.evaluation.blocks import rows_in_training
from distill_core.keys import (
    EvaluationSplit,
    ImageSet,
    StudentStart,
    TrainingSet,
    posttrain_key,
)
from distill_core.selection.distinct import distinct_images
from distill_core.storage.manifest import ManifestEntry
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from tasks.jobs import Job, Receipt
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId
from tasks.stages.reads import Reads
from tasks.stages.relabel import LABELS, described
from tasks.stages.training import Trained, train_and_commit
from tasks.stages.worker import IMAGES, WEIGHTS, WorkerContext

if TYPE_CHECKING:
    from torch import nn

    from distill_core.labels.reading import ViewReader
    from distill_core.posttrain.images import TrainingImages
    from distill_core.training.runtime import TrainingRuntime


@dataclass(frozen=True)
class PosttrainPayload:
    """The student to train, and the shards of its training set."""

    round: int | None  # the student is trained after this round; None: after all of them
    start: Reads | None  # the student that this one goes on from
    student: int  # number of the student in the config
    seed: int
    set_name: SetName
    images: Reads  # all image shards
    labels: Reads  # all label shards, image shard by image shard
    missing: tuple[str, ...]  # shards that the set goes without


def posttrain_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per student, seed and set; after an earlier round, its one student."""
    run = plan.run.config
    config = run if stage.round is None else run.after_round(stage.round)
    jobs = tuple(
        _posttrain_job(plan, config, stage, student, seed, set_name)
        for student in range(len(config.posttrain.students))
        for seed in config.posttrain.seeds
        for set_name in config.posttrain.sets
    )
    return {stage: jobs}


def _posttrain_job(
    plan: RunInputs, config: RunConfig, stage: StageId, which: int, seed: int, set_name: SetName
) -> Job[PosttrainPayload]:
    number, student = stage.last_round(plan.run.config), config.posttrain.students[which]
    images, labels, missing = _sources(plan, stage, _image_set(set_name))
    # Students of earlier rounds go on from each other; those that are judged start from scratch.
    start = None if stage.is_last or number == 1 else plan.student(number)
    hard = set_name == "hard_labels"
    labels = [] if hard else labels
    rows = rows_in_training(plan.test_images, plan.run.config.posttrain.validation_shard)
    key = posttrain_key(
        config,
        student=StudentStart(student, seed, None if start is None else start.sha256(WEIGHTS)),
        data=TrainingSet(
            set_name,
            [entry.content(IMAGES) for entry in images],
            [entry.content(LABELS) for entry in labels],
            teachers=[] if hard else plan.digests(plan.run.config.relabel.teachers),
            missing=missing,
        ),
        test=EvaluationSplit(
            plan.index.class_hash,
            plan.index.test_fingerprint,
            rows=None if rows is None else len(rows),
        ),
    )
    payload = PosttrainPayload(
        round=stage.round,
        start=None if start is None else Reads.of([start], WEIGHTS),
        student=which,
        seed=seed,
        set_name=set_name,
        images=Reads.of(images, IMAGES),
        labels=Reads.of(labels, LABELS),
        missing=tuple(missing),
    )
    return Job(key, f"{student.title}_{set_name}_s{seed}", payload)


def _image_set(set_name: SetName) -> ImageSet:
    return "random_real" if set_name == "random_real" else "distilled"


def _sources(
    plan: RunInputs, stage: StageId, images_of: ImageSet
) -> tuple[list[ManifestEntry], list[ManifestEntry], list[str]]:
    """Return the image and label shards of one set, and the names of those that it lacks.

    An image shard that lacks labels is left out whole, in every set of the same images: students
    are compared on equal terms.
    """
    images = plan.manifest(StageId("recover", stage.round, images_of)).entries
    labels = plan.manifest(StageId("relabel", stage.round, images_of))
    partly = {described(shard) for shard in labels.missing}
    return (
        [entry for entry in images if entry.shard not in partly],
        [entry for entry in labels.entries if described(entry.shard) not in partly],
        list(labels.missing),
    )


class PosttrainWorker:
    """Trains one student on one set, and evaluates it as it learns."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("posttrain", **context)
        self._held: tuple[tuple[str, ...], TrainingImages] | None = None  # of the last job

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
        missing = {"missing": list(payload.missing)}
        repeated = _repeated(config, self.context.plan.index, _image_set(payload.set_name))

        def train(runtime: TrainingRuntime) -> Trained:
            whole = self.context.plan.test_images
            rows = rows_in_training(whole, config.posttrain.validation_shard)
            images = payload.images.markers(ShardStore(self.context.run.store, "recover"), IMAGES)
            trained = train_on_shards(
                task,
                self._images(images),
                SoftLabels(lambda: self.context.labeller, self._readers(payload.labels, images)),
                Labelled(*self.context.split("test", rows)),
                start=self._start(payload.start),
                runtime=runtime,
            )
            result = trained.result | missing | repeated | _evaluated_on(rows, whole)
            return Trained(
                lambda: {
                    "result.json": json.dumps(result).encode(),
                    "safetensors": save_weights(trained.last),
                    "ema.safetensors": save_weights(trained.ema),
                },
                result,
            )

        return train_and_commit(self.context, job, train)

    def _images(self, markers: Sequence[Marker]) -> TrainingImages:
        """Return the images of some shards; students of one set follow one another.

        The workers of a machine hold the pixels of a set once.
        """
        from distill_core.posttrain.images import shared_images

        digests = tuple(marker.file(IMAGES).sha256 for marker in markers)
        if self._held is None or self._held[0] != digests:
            self._held = None  # frees the last set before the next one is read
            size = sum(marker.rows for marker in markers) * 3 * self.context.config.data.side**2
            images = shared_images(
                digests, lambda number: self.context.images(markers[number]), size=size
            )
            self._held = digests, images
        return self._held[1]

    def _start(self, reads: Reads | None) -> nn.Module | None:
        """Return the student of the round before, if this one goes on from it."""
        from distill_core.models.files import load_network

        rounds = self.context.config.rounds
        if reads is None or rounds is None:
            return None
        shard_store, classes = self.context.shard_store, self.context.config.data.num_classes
        (marker,) = reads.markers(shard_store, WEIGHTS)
        weights = shard_store.load(marker, WEIGHTS)
        return load_network(weights, rounds.student, num_classes=classes)

    def _readers(self, labels: Reads, images: Sequence[Marker]) -> list[ViewReader]:
        """Return the readers of the stored labels by image shard; none if there are no labels.

        Args:
            labels: all label shards, those of an image shard adjacent.
            images: the image shards.
        """
        shard_store = ShardStore(self.context.run.store, "relabel")
        markers = labels.markers(shard_store, LABELS)
        width = len(markers) // max(len(images), 1)
        return [
            self._reader(shard_store, markers[n * width : (n + 1) * width], image)
            for n, image in enumerate(images)
            if width
        ]

    def _reader(
        self, shard_store: ShardStore, labels: Sequence[Marker], images: Marker
    ) -> ViewReader:
        """Return the reader of one image shard's labels from its label shards."""
        from distill_core.labels.reading import view_reader
        from distill_core.storage.row_groups import RowGroupFile

        config = self.context.config

        def open_file(number: int) -> RowGroupFile:
            path = shard_store.marker_path(labels[number].key)
            return RowGroupFile(shard_store.store, labels[number].file(LABELS), marker=path)

        return view_reader(
            open_file,
            images=images.file(IMAGES).sha256,
            views_per_shard=config.relabel.views_per_shard,
            in_order=config.posttrain.view_order == "cycle",
        )


def _repeated(config: RunConfig, index: DatasetIndex, images_of: ImageSet) -> dict[str, Any]:
    """Return the facts of a result whose real images repeat, because a class has too few."""
    sizes = np.array(list(index.class_sizes("train").values()))
    distinct = distinct_images(config.recover_for(images_of), sizes, ipc=config.ipc)
    total = config.ipc * len(sizes)
    if distinct is None or distinct == total:
        return {}
    return {"distinct": {"images": distinct, "of": total}}


def _evaluated_on(rows: list[int] | None, whole: int) -> dict[str, Any]:
    """Return the facts of a result that is measured on a part of the test split.

    Args:
        rows: the part; None: all of it.
        whole: images of the split.
    """
    if rows is None:
        return {}
    return {"judged_on": {"images": len(rows), "of": whole, "rows": "evenly spaced"}}
