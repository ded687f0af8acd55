"""A tiny teacher and a tiny run, in any precision, for tests of the stages."""

from __future__ import annotations

import numpy as np
import torch

from distill_core.config.fields import Precision, Triple
from distill_core.config.load import load_run
from distill_core.config.recovery import RecoverConfig
from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from distill_core.models.build import build_model
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher
from distill_core.seeds import generator
from distill_core.sharding import Batch, ImageId
from distill_core.training.supervised import Labelled

CLASSES, SIDE, WIDTH = 4, 16, 8
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.25, 0.25)


def tiny_teacher(
    precision: Precision = "float32", *, seed: int = 0, mean: Triple = MEAN, std: Triple = STD
) -> FrozenTeacher:
    """Return a convnet3 whose running statistics are not the neutral ones."""
    config = ModelConfig(name="convnet3", width=WIDTH)
    model = build_model(config, CLASSES, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    spec = TeacherSpec(
        model=config,
        num_classes=CLASSES,
        class_hash="0" * 16,
        mean=mean,
        std=std,
        side=SIDE,
        features=WIDTH,
        accuracy=None,
        origin="test",
    )
    files = teacher_files(model, spec)
    return load_teacher(files["safetensors"], files["json"], precision=precision)


def tiny_run(*overrides: str) -> RunConfig:
    """Return a run over four classes of 16 x 16 pixels."""
    sizes = (
        f"data.num_classes={CLASSES}",
        f"data.side={SIDE}",
        f"data.mean={list(MEAN)}",
        f"data.std={list(STD)}",
        "posttrain.students=[{name: convnet3, width: 8}]",
    )
    return load_run("digits-demo", (*sizes, *overrides))


def tiny_recover(*overrides: str) -> RecoverConfig:
    """Return how the tiny run makes images: 20 steps of everything."""
    return tiny_run("recover.steps=20", "recover.flip=true", *overrides).recover


def tiny_batch(ipc_index: int = 0, classes: int = CLASSES) -> Batch:
    """Return one image of each class."""
    return tuple(ImageId(label, f"class_{label}", ipc_index) for label in range(classes))


def pixels(count: int, *, seed: int = 0) -> np.ndarray:
    """Return smooth random images, (count, 3, S, S) uint8."""
    coarse = generator(seed).integers(0, 256, (count, 3, SIDE // 4, SIDE // 4))
    return coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)


def labelled(count: int, *, seed: int = 0) -> Labelled:
    """Return images of every class in turn, brighter from class to class."""
    labels = np.arange(count, dtype=np.int64) % CLASSES
    bright = (pixels(count, seed=seed) // 2 + 30 * labels[:, None, None, None]).astype(np.uint8)
    return Labelled(bright, labels)
