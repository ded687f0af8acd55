"""A teacher that nobody trained, for measurements in which values do not matter."""

from __future__ import annotations

from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from distill_core.models.build import build_model, head_width
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher


def untrained_teacher(
    config: RunConfig, number: int = 0, *, model: ModelConfig | None = None
) -> FrozenTeacher:
    """Return a teacher of a run, or another network, as a worker reads it from its files."""
    model, data = model or config.squeeze.member(number).model, config.data
    spec = TeacherSpec(
        model=model,
        num_classes=data.num_classes,
        class_hash="0" * 16,
        mean=data.mean,
        std=data.std,
        side=data.side,
        features=head_width(model),
        origin="untrained",
    )
    files = teacher_files(build_model(model, data.num_classes, seed=0), spec)
    return load_teacher(files["safetensors"], files["json"], precision=config.precision)
