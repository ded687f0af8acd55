"""Accuracy on CIFAR-10 after a few minutes: a teacher, and students of two small sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.baselines import decode_files
from benchmarks.gpu_checks import Row
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.labels.relabel import relabel_shard
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.shard import recover_shard
from distill_core.selection.class_images import ClassImages
from distill_core.sharding import ClassEntry, class_list_hash, plan_shards
from distill_core.squeeze.result import SqueezedTeacher
from distill_core.squeeze.teacher import train_teacher
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled

CLASSES = [ClassEntry(label, f"class_{label}") for label in range(10)]
FULL = (
    "ipc=10",
    "precision=bfloat16",
    "squeeze.model={name: resnet18_small, width: 64}",
    "squeeze.training.epochs=8",
    "recover.steps=1000",
    "relabel.views=300",
    "posttrain.students=[{name: resnet18_small, width: 64}]",
    "posttrain.epochs=300",
)
QUICK = (
    "ipc=2",
    "squeeze.model={name: resnet18_small, width: 8}",
    "squeeze.training.epochs=1",
    "recover.steps=5",
    "recover.ipc_range=2",
    "relabel.views=2",
    "posttrain.students=[{name: resnet18_small, width: 8}]",
    "posttrain.epochs=2",
)
METHODS = {
    "random real images": ("recover.init=real", "recover.steps=0"),
    "CDA": (),
}


def rows(data: str | None, device: str, *, quick: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield a row for each method; without a folder, one that gives the reason."""
    if data is None:
        yield "CIFAR-10", lambda: Row("CIFAR-10", "no folder was given by --data", None)
        return
    missing = [
        name for name in ("train.parquet", "test.parquet") if not _file(data, name).is_file()
    ]
    if missing:
        yield "CIFAR-10", lambda: Row("CIFAR-10", f"{data} has no {missing[0]}", False)
        return
    for method in METHODS:
        yield method, lambda m=method: _row(m, data, device, quick)  # type: ignore[misc]


def _file(data: str, name: str) -> Path:
    return Path(data) / name


@cache
def _split(data: str, name: str, quick: bool) -> Labelled:
    """Read a split of Parquet files with columns of images and of labels."""
    table = pq.read_table(_file(data, name), columns=["image", "label"])
    table = table.slice(0, 300) if quick else table
    files = [image["bytes"] for image in table["image"].to_pylist()]
    pixels = np.ascontiguousarray(decode_files(files).transpose(0, 3, 1, 2))
    return Labelled(pixels, table["label"].to_numpy().astype(np.int64))


def _run(method: str, quick: bool) -> RunConfig:
    return load_run("cda-cifar10-cpu", (*(QUICK if quick else FULL), *METHODS[method]))


@cache
def _teacher(data: str, device: str, quick: bool) -> tuple[SqueezedTeacher, float]:
    """Train the teacher that all methods share; return it with its seconds."""
    start = time.perf_counter()
    train, test = (_split(data, f"{name}.parquet", quick) for name in ("train", "test"))
    made = train_teacher(
        train, test, run=_run("CDA", quick), class_hash=class_list_hash(CLASSES),
        runtime=TrainingRuntime(device=device),
    )  # fmt: skip
    return made, time.perf_counter() - start


def _row(method: str, data: str, device: str, quick: bool) -> Row:
    run, (squeezed, seconds) = _run(method, quick), _teacher(data, device, quick)
    train, test = (_split(data, f"{name}.parquet", quick) for name in ("train", "test"))
    teacher = squeezed.frozen(device=device, precision=run.precision)
    start = time.perf_counter()
    plan = plan_shards(
        CLASSES, ipc=run.ipc, ipc_range=run.recover.ipc_range, batch_size=run.recover.batch_size,
        composition=run.recover.composition,
    )  # fmt: skip
    of_class = [np.flatnonzero(train.labels == label) for label in range(10)]
    real = ClassImages(lambda label: of_class[label], lambda chosen: train.pixels[chosen])
    setup = RecoverySetup(run.recover, [teacher], seed=run.seed)
    images = [recover_shard(shard.batches, setup, real=real).rows for shard in plan]
    recovered = time.perf_counter()
    views = range(run.relabel.stored_views)
    labels = [
        relabel_shard(rows, views, config=run.relabel, teacher=teacher, seed=run.seed)
        for rows in images
    ]
    relabelled = time.perf_counter()
    task = StudentTask(run, run.posttrain.students[0], seed=0, images_of="distilled")
    soft, runtime = SoftLabels.in_memory(teacher, labels), TrainingRuntime(device=device)
    student = train_on_shards(task, images, soft, test, runtime=runtime)
    trained = time.perf_counter()
    value = (
        f"IPC {run.ipc}: student {student.result['last']['top1']:.1f} %, teacher "
        f"{squeezed.accuracy.top1:.1f} %; squeeze {seconds:.0f} s, recover {recovered - start:.0f} "
        f"s, relabel {relabelled - recovered:.0f} s, post-train {trained - relabelled:.0f} s"
    )
    return Row(f"CIFAR-10, {method}", value, None)
