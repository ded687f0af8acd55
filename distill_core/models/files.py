"""Networks as files: weights in safetensors, and the description of a teacher in JSON."""

from __future__ import annotations

import torch
from safetensors.torch import load, save
from torch import nn

from distill_core.config.fields import Precision
from distill_core.config.training import ModelConfig
from distill_core.errors import DivergedError
from distill_core.models.build import head_name, skeleton, with_weights
from distill_core.models.fitting import fit_weights
from distill_core.models.importing import parse_safetensors
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher
from distill_core.storage.digest import sha256


def teacher_files(model: nn.Module, spec: TeacherSpec) -> dict[str, bytes]:
    """Return the files of a teacher by suffix; the same weights give the same bytes."""
    return {"safetensors": save_weights(model), "json": spec.to_json()}


def save_weights(model: nn.Module) -> bytes:
    """Return the state dict of a network as safetensors.

    Raises:
        DivergedError: a number is not finite. A loss shows that one step late, so the last step of
            a training needs this check.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DivergedError(
                f"{type(model).__name__}: tensor {name!r} has NaN or infinite values, expected "
                "finite weights. Lower the learning rate, or use precision=float32."
            )
    return save(tensors)


def load_network(weights: bytes, config: ModelConfig, *, num_classes: int) -> nn.Module:
    """Return the network of weights written by `save_weights`, in their precision, on the CPU.

    Raises:
        RuntimeError: the weights belong to another network.
    """
    return with_weights(config, num_classes, load(weights), skeleton(config, num_classes))


def load_teacher(
    weights: bytes,
    spec: bytes,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> FrozenTeacher:
    """Return the teacher of two stored files; its digest is the sha256 of `weights`.

    Raises:
        DataError: one of them cannot be read.
        ConfigError: the weights do not belong to the described network.
    """
    description, digest = TeacherSpec.from_json(spec), sha256(weights)
    model = load_model(weights, description, where=f"teacher {digest[:8]}")
    return FrozenTeacher(model, description, digest=digest, precision=precision).to(device)


def load_model(weights: bytes, spec: TeacherSpec, *, where: str) -> nn.Module:
    """Return the network of a stored teacher, float32 on the CPU.

    Raises:
        DataError: the weights cannot be read.
        ConfigError: they do not belong to the described network.
    """
    state = parse_safetensors(weights, where=where)
    return fit_weights(state, spec.model, num_classes=spec.num_classes, where=where)


def load_student(
    weights: bytes, config: ModelConfig, teacher: FrozenTeacher, *, precision: Precision
) -> FrozenTeacher:
    """Return a trained student as a frozen network, on the device of the teacher.

    Args:
        weights: safetensors, as stored by post-train.
        config: the student's architecture.
        teacher: with the student's classes, normalisation and size.
        precision: of the convolutions.

    Raises:
        RuntimeError: the weights belong to another network.
    """
    model = load_network(weights, config, num_classes=teacher.spec.num_classes)
    features = model.get_submodule(head_name(model)).in_features
    spec = teacher.spec.model_copy(
        update={"model": config, "features": features, "accuracy": None, "origin": "post-train"}
    )
    frozen = FrozenTeacher(model, spec, digest=sha256(weights), precision=precision)
    return frozen.to(teacher.head.weight.device)
