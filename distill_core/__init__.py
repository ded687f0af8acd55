"""Dataset distillation on one machine: the methods, the data and the storage, without a cluster.

The names below are the public surface; everything else in the package is internal and may change.
They are imported when they are first used, so importing this package needs no torch, opens no file
and no connection. The core does not import Ray, Prefect, a command line or a cloud SDK (checked by
import-linter); object stores are reached through fsspec, by URL.

A distillation is a chain of six calls, see `examples/distill_with_the_core.py`:

configuration  `load_run` resolves a preset to a `RunConfig`
squeeze        `train_teacher`, or `read_teacher` and `teacher_from_module`
recover        `plan_shards`, then `recover_shard` or `recover_batch` with a `RecoverySetup`
relabel        `relabel_shard`
post-train     `train_on_shards`, with a `StudentTask` and `SoftLabels`
storage        `encode_images` and `read_images`, `encode_labels` and `read_labels`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill_core.config.load import load_run
    from distill_core.config.schema import RunConfig
    from distill_core.errors import DistillError
    from distill_core.labels.relabel import relabel_shard
    from distill_core.loading import read_images, read_labels, read_teacher, teacher_from_module
    from distill_core.models.teacher import FrozenTeacher
    from distill_core.posttrain.student import StudentTask
    from distill_core.posttrain.train import SoftLabels, train_on_shards
    from distill_core.recover.optimise import recover_batch
    from distill_core.recover.setup import RecoverySetup
    from distill_core.recover.shard import recover_shard
    from distill_core.selection.class_images import ClassImages
    from distill_core.sharding import ClassEntry, ImageId, class_list_hash, plan_shards
    from distill_core.squeeze.teacher import train_teacher
    from distill_core.storage.image_shards import ImageRows, encode_images
    from distill_core.storage.label_shards import LabelRows, encode_labels
    from distill_core.training.runtime import TrainingRuntime
    from distill_core.training.supervised import Labelled

_MODULES = {  # public name -> the module that defines it
    "ClassEntry": "sharding",
    "ClassImages": "selection.class_images",
    "DistillError": "errors",
    "FrozenTeacher": "models.teacher",
    "ImageId": "sharding",
    "ImageRows": "storage.image_shards",
    "LabelRows": "storage.label_shards",
    "Labelled": "training.supervised",
    "RecoverySetup": "recover.setup",
    "RunConfig": "config.schema",
    "SoftLabels": "posttrain.train",
    "StudentTask": "posttrain.student",
    "TrainingRuntime": "training.runtime",
    "class_list_hash": "sharding",
    "encode_images": "storage.image_shards",
    "encode_labels": "storage.label_shards",
    "load_run": "config.load",
    "plan_shards": "sharding",
    "read_images": "loading",
    "read_labels": "loading",
    "read_teacher": "loading",
    "recover_batch": "recover.optimise",
    "recover_shard": "recover.shard",
    "relabel_shard": "labels.relabel",
    "teacher_from_module": "loading",
    "train_on_shards": "posttrain.train",
    "train_teacher": "squeeze.teacher",
}

__all__ = [
    "ClassEntry",
    "ClassImages",
    "DistillError",
    "FrozenTeacher",
    "ImageId",
    "ImageRows",
    "LabelRows",
    "Labelled",
    "RecoverySetup",
    "RunConfig",
    "SoftLabels",
    "StudentTask",
    "TrainingRuntime",
    "class_list_hash",
    "encode_images",
    "encode_labels",
    "load_run",
    "plan_shards",
    "read_images",
    "read_labels",
    "read_teacher",
    "recover_batch",
    "recover_shard",
    "relabel_shard",
    "teacher_from_module",
    "train_on_shards",
    "train_teacher",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
