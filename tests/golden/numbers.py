"""Golden numbers: twenty steps of each stage on tiny data, in float64 and in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from distill_core.config.fields import Precision
from distill_core.config.schema import RunConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import OnlineLabels
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import train_student
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.squeeze.teacher import train_teacher
from distill_core.storage.image_shards import ImageRows
from distill_core.training.supervised import Labelled
from tests.support.label_definitions import dequantise
from tests.support.tiny import (
    labelled,
    pixels,
    tiny_batch,
    tiny_recover,
    tiny_run,
    tiny_teacher,
)


def run_of(precision: Precision, *overrides: str) -> RunConfig:
    """Return the tiny run in a precision."""
    return tiny_run(f"precision={precision}", *overrides)


def squeeze(precision: Precision) -> list[float]:
    """Return the loss of twenty epochs of one step."""
    run = run_of(
        precision,
        "squeeze.model={name: convnet3, width: 8}",
        "squeeze.training.epochs=20",
        "squeeze.training.batch_size=16",
        "squeeze.training.optimizer.lr=0.02",
    )
    made = train_teacher(labelled(16), labelled(8, seed=1), run=run, class_hash="0" * 16)
    return [point["loss"] for point in made.curve]


def recover(precision: Precision) -> list[float]:
    """Return the total loss of twenty steps with crop, flip, roll and both terms."""
    setup = RecoverySetup(tiny_recover(), [tiny_teacher(precision)], seed=0)
    made = recover_batch(tiny_batch(), setup)
    return [point["total"] for point in made.trace]


def relabel(precision: Precision) -> list[float]:
    """Return the mean feature of twenty CutMix views, as stored."""
    images = tiny_batch(0) + tiny_batch(1)
    run = run_of(precision, "relabel.scheme=features")
    rows = relabel_shard(
        ImageRows(images, pixels(len(images))),
        range(20),
        config=run.relabel,
        teacher=tiny_teacher(precision),
        seed=0,
    )
    assert rows.values is not None
    assert rows.affine is not None
    return [float(v) for v in dequantise(rows.values, rows.affine).astype(np.float64).mean((1, 2))]


def posttrain(precision: Precision) -> list[float]:
    """Return the loss of twenty epochs of one step on online labels."""
    images = tiny_batch(0) + tiny_batch(1)
    run = run_of(
        precision,
        "posttrain.epochs=20",
        "posttrain.batch_size=8",
        "posttrain.evaluate_every=1",
        "posttrain.temperature=1",
    )
    data = Labelled(pixels(len(images)), np.array([i.label for i in images]))
    shards = [(images, torch.from_numpy(data.pixels))]
    labels = OnlineLabels(shards, tiny_teacher(precision), run.relabel, 0)
    task = StudentTask(run, run.posttrain.students[0], 0, "distilled")
    student = train_student(task, data, labels, labelled(8, seed=1))
    return [point["loss"] for point in student.result["curve"]]


GOLDEN: Mapping[str, Callable[[Precision], list[float]]] = {
    f.__name__: f for f in (squeeze, recover, relabel, posttrain)
}
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
