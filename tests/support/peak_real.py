"""The stages that read real images or train, on drawn images, for `tests.support.peak_memory`.

Each takes the config and the numbers of real training and test images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
from torch import Tensor

from benchmarks.untrained import untrained_teacher
from distill_core.config.schema import RunConfig
from distill_core.evaluation.validate import validate_student
from distill_core.models.build import build_model
from distill_core.models.files import save_weights
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.selection.class_images import ClassImages
from distill_core.selection.select import SelectionSetup, select_block
from distill_core.sharding import ImageId
from distill_core.statistics.measure import MeasureSetup, measure_block
from distill_core.storage.image_shards import ImageRows
from distill_core.training.checkpoint import pack_state
from distill_core.training.epochs import BatchParts, train_epoch
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import StreamedSplit, source_of
from distill_core.training.supervised import Labelled, TrainState, evaluate
from flows.estimate.memory.real_data import RealData
from flows.estimate.workload import label_values
from tests.support import label_shards
from tests.support.peak_images import pixels

STEPS = 3  # of a training


class Enough(Exception):
    """The training has taken all steps."""


class Discarded:
    """Checkpoints that are made and stored nowhere."""

    def save(self, step: int, state: Callable[[], bytes], *, batches: int = 0) -> None:
        state()

    def stored(self) -> Iterator[tuple[int, bytes]]:
        return iter(())


def labelled(count: int, config: RunConfig) -> Labelled:
    labels = np.arange(count, dtype=np.int64) % config.data.num_classes
    return Labelled(pixels(count, config.data.side), labels)


def squeeze(config: RunConfig, real: RealData) -> None:
    """Take a few steps of a teacher's training, keep a checkpoint, and evaluate it."""
    training = config.squeeze.training
    assert training is not None
    state = TrainState.start(config, training, device="cpu")
    assert real.train is not None
    assert real.test is not None
    side, test = config.data.side, labelled(real.test, config)
    if real.resident > 0:
        source = source_of(labelled(real.train, config), config, device="cpu")
    else:
        labels = np.arange(real.train, dtype=np.int64) % config.data.num_classes
        split = StreamedSplit(lambda r: pixels(len(r), side), labels)
        source = source_of(split, config, device="cpu")
    parts = BatchParts.of(training, TrainingRuntime())
    with suppress(Enough):
        train_epoch(state.model, state, source, parts, epoch=0, after_step=_enough)
    pack_state(state.model, state.optimizer)
    evaluate(state.model, test, config, device="cpu")


def _enough(done: int, _of: int, _losses: Tensor) -> None:
    if done >= STEPS:
        raise Enough


def statistics(config: RunConfig, real: RealData) -> None:
    """Measure two classes."""
    teacher, scorer = untrained_teacher(config), untrained_teacher(config)
    setup = MeasureSetup(config.recover, teacher, scorer, config.seed)
    measure_block([(0, "a"), (1, "b")], _class_images(config, real), setup)


def select(config: RunConfig, real: RealData) -> None:
    """Classify two classes by a teacher and a student."""
    assert config.rounds is not None
    network = untrained_teacher(config, 0)
    student = untrained_teacher(config, 0, model=config.rounds.student)
    setup = SelectionSetup(network, student, config.recover.candidates, config.seed)
    select_block([(0, "a"), (1, "b")], _class_images(config, real), setup)


def _class_images(config: RunConfig, real: RealData) -> ClassImages:
    count = real.of_a_class(config.data.num_classes)
    assert count is not None
    side = config.data.side
    return ClassImages(lambda label: np.arange(count), lambda r: pixels(len(r), side), side)


def validate(config: RunConfig, real: RealData) -> None:
    """Evaluate both weights of the first student on a block."""
    block = labelled(min(real.test or 0, config.posttrain.validation_shard), config)
    student = config.posttrain.students[0]
    stored = save_weights(build_model(student, config.data.num_classes, seed=0))
    weights = {"last": stored, "ema": bytes(bytearray(stored))}
    validate_student(
        weights, block.pixels, block.labels, student=student, data=config.data, device="cpu"
    )


def posttrain(config: RunConfig, real: RealData) -> None:
    """Train the first student for one epoch on one shard per class."""
    shards = [
        ImageRows(
            tuple(ImageId(label, f"c{label}", index) for index in range(config.ipc)),
            pixels(config.ipc, config.data.side),
        )
        for label in range(config.data.num_classes)
    ]
    scheme, width = label_values(config)
    soft = SoftLabels(lambda: untrained_teacher(config, 0))
    if scheme != "online":
        labels = label_shards.shard(
            views=range(1),
            count=config.ipc,
            width=width,
            mix=config.relabel.mix.kind,
            scheme=scheme,
        )
        whole = np.zeros_like(labels.boxes)
        whole[..., 2:] = config.data.side
        fitting = replace(labels, boxes=whole, mix_boxes=np.zeros_like(labels.mix_boxes))
        soft = SoftLabels.in_memory(untrained_teacher(config, 0), [fitting] * len(shards))
    test = labelled(real.test or 0, config)
    task = StudentTask(config, config.posttrain.students[0], 0, "distilled")
    train_on_shards(task, shards, soft, test, runtime=TrainingRuntime(checkpoints=Discarded()))
