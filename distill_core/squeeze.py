"""Squeeze: train a teacher on real images, or take one from a file.

Axes: n images in the split, B in the global batch, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distill_core.augment import apply_augmentation, sample_augmentation
from distill_core.config.schema import RunConfig, TrainingConfig
from distill_core.errors import ConfigError, DivergedError
from distill_core.metrics import Accuracy
from distill_core.models.build import build_model
from distill_core.models.files import teacher_files
from distill_core.models.heads import head_name
from distill_core.models.importing import import_model, read_description
from distill_core.models.spec import TeacherSpec, check_teacher
from distill_core.progress import Progress, silent
from distill_core.seeds import derive_seed, generator, philox_key
from distill_core.training import (
    CheckpointPort,
    World,
    build_optimizer,
    evaluate,
    lr_at,
    pack_state,
    unpack_state,
)

EVALUATIONS = 20  # points of the accuracy curve, at most; the last epoch is always one


@dataclass(frozen=True)
class Labelled:
    """One split of the real images, resident in memory."""

    pixels: np.ndarray  # (n, 3, S, S) uint8
    labels: np.ndarray  # (n,) int64


@dataclass(frozen=True)
class SqueezedTeacher:
    """A teacher and how good it is."""

    files: dict[str, bytes]  # by suffix: safetensors and json
    accuracy: Accuracy  # on the test split, percent
    curve: tuple[dict[str, float], ...]  # epoch, lr, loss, and top1 where it was measured


def train_teacher(
    train: Labelled,
    test: Labelled,
    *,
    run: RunConfig,
    class_hash: str,
    device: str = "cpu",
    world: World = World(),
    checkpoints: CheckpointPort | None = None,
    progress: Progress = silent,
) -> SqueezedTeacher:
    """Train the teacher of a run; an interrupted training goes on after its last whole epoch.

    Every draw is named by (seed, purpose, epoch or step), so an interrupted and resumed training
    ends with the bytes of an undisturbed one, on one device kind and thread count. Of several
    processes, all call this and all return the same weights.

    Args:
        train: what the teacher learns.
        test: what its accuracy is measured on, by the first process.
        run: its seed, precision, normalisation, network and training.
        class_hash: identity of the label space.
        device: where this process computes.
        world: this process among all of the training.
        checkpoints: where the state is kept after every epoch; None keeps none.
        progress: told (epochs done, epochs in total).

    Raises:
        DivergedError: the loss stopped being finite.
    """
    training = run.squeeze.training
    assert training is not None
    gpus = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):  # the seeds below are for dropout alone
        trainee = _Trainee.start(run, training, device=device)
    raise NotImplementedError
