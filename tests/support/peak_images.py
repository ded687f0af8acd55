"""Networks that are not trained and drawn images, for measurements of memory."""

from __future__ import annotations

import numpy as np

from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from distill_core.models.build import build_model, head_width
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher


def teacher(config: RunConfig, number: int, *, model: ModelConfig | None = None) -> FrozenTeacher:
    """Return a teacher of a run, or another network, as a worker reads it, without training."""
    model, data = model or config.squeeze.member(number).model, config.data
    spec = TeacherSpec(
        model=model,
        num_classes=data.num_classes,
        class_hash="0" * 16,
        mean=data.mean,
        std=data.std,
        side=data.side,
        features=head_width(model),
        origin="test",
    )
    files = teacher_files(build_model(model, data.num_classes, seed=0), spec)
    return load_teacher(files["safetensors"], files["json"], precision=config.precision)


def pixels(count: int, side: int) -> np.ndarray:
    """Return drawn images, (count, 3, S, S) uint8."""
    drawn: np.ndarray = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    return drawn
