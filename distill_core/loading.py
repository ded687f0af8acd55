"""Teachers from networks and files, and the images and labels of a distilled set from files.

Axes: V views, N images, S side in pixels, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from distill_core.config.fields import Precision, Triple
from distill_core.config.training import ModelConfig
from distill_core.models.build import head_name
from distill_core.models.files import load_teacher, save_weights
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher
from distill_core.storage.digest import read_file, sha256
from distill_core.storage.image_shards import ImageRows, decode_images
from distill_core.storage.label_shards import LabelRows, decode_labels

WEIGHTS = ".safetensors"


def teacher_from_module(
    model: nn.Module,
    *,
    side: int,
    mean: Triple,
    std: Triple,
    network: ModelConfig | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
) -> FrozenTeacher:
    """Return a frozen teacher with a copy of a network's weights.

    Args:
        model: a trained classifier, (B, 3, S, S) -> (B, C); its last linear layer is the head.
        side: S of the images it was trained on, in pixels.
        mean: normalisation it was trained with, per channel, of pixels in [0, 1].
        std: likewise.
        network: its architecture, if it is one of `distill_core.models`; only such a teacher can be
            stored and loaded again.
        device: where it computes.
        precision: of its convolutions.

    Raises:
        TypeError: the network has no linear layer.
    """
    head = model.get_submodule(head_name(model))
    assert isinstance(head, nn.Linear)
    other: dict[str, Any] = {"name": type(model).__name__}  # in no table, so it is not validated
    spec = TeacherSpec(
        model=network or ModelConfig.model_construct(**other),
        num_classes=head.out_features,
        class_hash="",
        mean=mean,
        std=std,
        side=side,
        features=head.in_features,
        origin="module",
    )
    digest = sha256(save_weights(model))
    return FrozenTeacher(deepcopy(model), spec, digest=digest, precision=precision).to(device)


def read_teacher(
    url: str, *, device: str | torch.device = "cpu", precision: Precision = "float32"
) -> FrozenTeacher:
    """Read a stored teacher: its weights, and the description beside them.

    Args:
        url: path or URL of the weights, `NAME.safetensors`; `NAME.json` is the description.
        device: where it computes.
        precision: of its convolutions.

    Raises:
        ConfigError: a file is missing, or the weights are of another network than the description.
        DataError: one of the files is damaged.
    """
    spec = read_file(url.removesuffix(WEIGHTS) + ".json")
    return load_teacher(read_file(url), spec, device=device, precision=precision)


def read_images(url: str) -> ImageRows:
    """Read an image shard: ids and (N, 3, S, S) uint8 pixels, every image verified.

    Args:
        url: path or URL of the Parquet file, in a store or in a published set.

    Raises:
        ConfigError: it is missing.
        DataError: it is damaged, or has another schema.
    """
    return decode_images(read_file(url), where=url)


def read_labels(url: str, views: Sequence[int] | None = None) -> LabelRows:
    """Read a label shard: draws and soft labels of N images under V views.

    Args:
        url: path or URL of the Parquet file, in a store or in a published set.
        views: view ids, in the order wanted; None: all of the file.

    Raises:
        ConfigError: it is missing.
        DataError: it is damaged, has another schema, or lacks a view.
    """
    return decode_labels(read_file(url), views, where=url)
