"""A whole dataset distillation with the core alone: no store, no Ray, no Prefect, no download.

python examples/distill_with_the_core.py

The data are striped patterns, one direction per class. A small teacher is trained on 400 of them
(squeeze), twenty images are optimised through it (recover) and labelled by it under many views
(relabel), and a student is trained on nothing else and evaluated (post-train). It takes less than
half a minute on two cores and prints the accuracy of teacher and student.
"""

from __future__ import annotations

import numpy as np

from distill_core import (
    ClassEntry,
    Labelled,
    RecoverySetup,
    RunConfig,
    SoftLabels,
    StudentTask,
    class_list_hash,
    load_run,
    plan_shards,
    recover_shard,
    relabel_shard,
    train_on_shards,
    train_teacher,
)

CLASSES, SIDE = 5, 16
SETTINGS = (  # the method is that of the preset, its sizes are these
    f"data.num_classes={CLASSES}",
    f"data.side={SIDE}",
    "data.mean=[0.5, 0.5, 0.5]",
    "data.std=[0.25, 0.25, 0.25]",
    "ipc=4",
    "squeeze.model={name: convnet3, width: 16}",
    "squeeze.training.epochs=6",
    "recover.steps=100",
    "relabel.views=60",
    "posttrain.students=[{name: convnet3, width: 16}]",
    "posttrain.epochs=100",
    "posttrain.batch_size=10",
)


def patterns(count: int, *, seed: int) -> Labelled:
    """Return noisy stripes, (count, 3, S, S) uint8; the direction of the stripes is the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    angles = (labels * np.pi / CLASSES)[:, None, None]
    rows, columns = np.mgrid[:SIDE, :SIDE]
    waves = np.sin(
        rows * np.cos(angles) + columns * np.sin(angles) + rng.uniform(0, 6, angles.shape)
    )
    images = 128 + 60 * waves[:, None] + rng.normal(0, 40, (count, 3, SIDE, SIDE))
    return Labelled(images.clip(0, 255).astype(np.uint8), labels)


def distill(run: RunConfig, train: Labelled, test: Labelled) -> tuple[float, float]:
    """Return the accuracy of the teacher and of a student of the distilled set, in percent."""
    classes = [ClassEntry(label, f"stripes_{label}") for label in range(CLASSES)]
    squeezed = train_teacher(train, test, run=run, class_hash=class_list_hash(classes))
    teacher = squeezed.frozen()

    plan = plan_shards(
        classes,
        ipc=run.ipc,
        ipc_range=run.recover.ipc_range,
        batch_size=run.recover.batch_size,
        composition=run.recover.composition,
    )
    setup = RecoverySetup(run.recover, [teacher], seed=run.seed)
    images = [recover_shard(shard.batches, setup).rows for shard in plan]

    views = range(run.relabel.stored_views)
    labels = [
        relabel_shard(rows, views, config=run.relabel, teacher=teacher, seed=run.seed)
        for rows in images
    ]

    task = StudentTask(run, run.posttrain.students[0], seed=0, images_of="distilled")
    student = train_on_shards(task, images, SoftLabels.in_memory(teacher, labels), test)
    return squeezed.accuracy.top1, student.result["last"]["top1"]


if __name__ == "__main__":
    run = load_run("digits-demo", SETTINGS)
    teacher, student = distill(run, patterns(400, seed=0), patterns(200, seed=1))
    print(f"teacher {teacher:.1f} %, student of {run.ipc * CLASSES} images {student:.1f} %")
