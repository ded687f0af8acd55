"""The squeeze stage: teachers that are trained, imported, or taken over from another run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_core.config.schema import RunConfig
from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import SPLITS
from distill_core.errors import ConfigError
from distill_core.keys import content_fingerprint, squeeze_key
from distill_core.models.spec import TeacherSpec, check_description, check_start
from distill_core.storage.digest import file_sha256
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.jobs import Job, Receipt
from tasks.stages.inputs import Jobs, NotReady, RunInputs
from tasks.stages.names import StageId
from tasks.stages.reads import check_weights, require
from tasks.stages.training import Trained, train_and_commit
from tasks.stages.worker import WorkerContext

if TYPE_CHECKING:
    from torch import nn

    from distill_core.training.runtime import TrainingRuntime


UNSEEN = "unseen"  # in the summary of a teacher: the classes that it was trained without


@dataclass(frozen=True)
class SqueezePayload:
    """The teacher to train or import."""

    teacher: int  # its number in the run: 0, then those of the pool
    start: str | None  # sha256 of the weights that training starts from


def squeeze_jobs(plan: RunInputs, stage: StageId) -> Jobs:
    """Return one job per teacher; one that is taken over is done already.

    Raises:
        NotReady: the teacher that is taken over, or that training starts from, is gone.
    """
    count = 1 + len(plan.run.config.squeeze.pool)
    return {stage: tuple(_squeeze_job(plan, number) for number in range(count))}


def _squeeze_job(plan: RunInputs, number: int) -> Job[SqueezePayload]:
    config, store = plan.run.config.of_teacher(number), plan.run.store
    reuse = config.squeeze.reuse
    key = teacher_key(plan, config) if reuse is None else stored_teacher(store, reuse).key
    shard, name = config.squeeze.model.title, config.squeeze.start
    start = None if name is None else weights_digest(stored_teacher(store, name))
    return Job(key, f"{shard}_t{number}" if number else shard, SqueezePayload(number, start))


def teacher_key(plan: RunInputs, config: RunConfig) -> str:
    """Return the key of a teacher that this run trains or imports.

    Args:
        plan: the run's.
        config: the run as if this teacher were its only one.
    """
    index = plan.index
    checkpoint, start = config.squeeze.checkpoint, config.squeeze.start
    return squeeze_key(
        config,
        class_hash=index.class_hash,
        train=content_fingerprint(index.fingerprints),
        test=index.test_fingerprint,
        checkpoint=None if checkpoint is None else file_sha256(checkpoint),
        start=None if start is None else weights_digest(stored_teacher(plan.run.store, start)),
    )


def check_inherited(config: RunConfig, index: DatasetIndex, store: Store) -> None:
    """Refuse teachers of another run that do not fit this one; others are checked elsewhere.

    Raises:
        NotReady: one is gone.
        ConfigError: one is of another network, normalisation, size or class list.
    """
    for number in range(1 + len(config.squeeze.pool)):
        _check_inherited(config.of_teacher(number), index, store)


def _check_inherited(config: RunConfig, index: DatasetIndex, store: Store) -> None:
    squeeze = config.squeeze
    if (key := squeeze.reuse or squeeze.start) is None:
        return
    marker = stored_teacher(store, key)
    spec = TeacherSpec.from_json(ShardStore(store, "squeeze").load(marker, "json"))
    where = f"squeeze.{'start' if squeeze.reuse is None else 'reuse'} = {key}"
    if squeeze.reuse is None:
        check_start(spec, config, index.classes, where=where)
        return
    check_description(spec, config, class_hash=index.class_hash, where=where)
    if spec.side != config.data.side:
        raise ConfigError(
            f"{where}: the teacher was trained on {spec.side} x {spec.side} pixels, the run says "
            f"data.side = {config.data.side}. Keep the size, or train another teacher."
        )


def stored_teacher(store: Store, key: str) -> Marker:
    """Return the marker of a teacher that some run has squeezed.

    Raises:
        NotReady: there is none under this key.
    """
    shard_store = ShardStore(store, "squeeze")
    marker = shard_store.marker(key)
    if marker is None:
        raise NotReady(
            f"{shard_store.uri(key)}: no such teacher, though squeeze.reuse or "
            "squeeze.start names it. Resume the run that made it, or squeeze another."
        )
    return marker


def weights_digest(marker: Marker) -> str:
    """Return the sha256 of a teacher's weights."""
    return marker.file("safetensors").sha256


class SqueezeWorker:
    """Trains a teacher, or imports it from a file."""

    def __init__(self, **context: Any) -> None:
        self.context = WorkerContext("squeeze", **context)

    def peek(self) -> tuple[int, int]:
        """Return (epochs done, epochs in total)."""
        return self.context.current_progress

    def run(self, job: Job[SqueezePayload]) -> Receipt:
        """Write the teacher's files and return their receipt."""
        from distill_core.data.real_images import RealImages
        from distill_core.squeeze.teacher import train_or_import
        from distill_core.training.streaming import evaluation_split

        config = self.context.config.of_teacher(job.payload.teacher)

        def train(runtime: TrainingRuntime) -> Trained:
            index = self.context.plan.index
            train, test = (RealImages(config.data, index, split, repeated=True) for split in SPLITS)
            teacher = train_or_import(
                train,
                evaluation_split(test, side=config.data.side),
                run=config,
                class_hash=index.class_hash,
                classes=index.class_names,
                start=self._start(config.squeeze.start, job.payload.start),
                runtime=runtime,
            )
            facts = {
                "model": config.squeeze.model.title,
                "accuracy": teacher.accuracy.top1 if teacher.judged else None,
                "top5": teacher.accuracy.top5 if teacher.judged else None,
                "epochs": len(teacher.curve),
                "curve": list(teacher.curve),
                UNSEEN: self._unseen(config),
            }
            if config.data.label_space is not None:
                facts["label_space"] = config.data.label_space
            return Trained(lambda: teacher.files, facts)

        return train_and_commit(self.context, job, train)

    def _unseen(self, config: RunConfig) -> list[str]:
        """Return the classes that a teacher is trained without; an imported one knows them all.

        The weights that training starts from may have seen some of them. What those of an older
        version have seen is not recorded here, and counts as nothing.
        """
        squeeze = config.squeeze
        if squeeze.training is None or squeeze.checkpoint is not None:
            return []
        empty = self.context.plan.index.without_images("train")
        if squeeze.start is None:
            return list(empty)
        started_without = require(self.context.shard_store, squeeze.start).summary.get(UNSEEN)
        return [wnid for wnid in empty if started_without is None or wnid in started_without]

    def _start(self, key: str | None, digest: str | None) -> nn.Module | None:
        """Return the network that training starts from, if it is a teacher of another run."""
        if key is None or digest is None:
            return None
        from distill_core.models.files import load_model
        from distill_core.models.spec import TeacherSpec

        shard_store = self.context.shard_store
        marker = require(shard_store, key)
        check_weights(marker, digest, shard_store.uri(key))
        spec = TeacherSpec.from_json(shard_store.load(marker, "json"))
        return load_model(
            shard_store.load(marker, "safetensors"), spec, where=f"squeeze.start = {key}"
        )
