"""Training of small teachers on images whose class is the brightest channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_core.config.schema import RunConfig
from distill_core.training.supervised import Labelled

TRAINING: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-4},
    "schedule": {"per_step": True, "warmup_epochs": 1},
    "augment": {"pad_crop": 1, "crop": (0.6, 1.0), "cutout": 0.25},
    "label_smoothing": 0.1,
    "nesterov": True,
}
TREE: dict[str, Any] = {
    "preset": "test",
    "source": "none",
    "expected": "not published",
    "ipc": 1,
    "data": {
        "name": "blobs",
        "format": "digits",
        "num_classes": 3,
        "side": 16,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    },
    "recover": {
        "init": "gaussian",
        "batch_size": 3,
        "steps": 1,
        "lr": 0.1,
        "betas": (0.5, 0.9),
        "terms": {"cross_entropy": 1.0},
        "first_layer_factor": 10.0,
        "crop": None,
        "flip": False,
        "roll": {"mode": "off"},
    },
    "relabel": {"views": 1, "crop": None, "flip": False, "mix": {"kind": "none"}},
    "posttrain": {
        "students": ({"name": "convnet3", "width": 4},),
        "epochs": 1,
        "batch_size": 3,
        "optimizer": {"name": "adamw", "lr": 0.001},
        "temperature": 20.0,
        "temperature_squared": False,
    },
}


def run(*, model: str = "resnet18_small", **changes: Any) -> RunConfig:
    """Return a tiny run; `changes` go to the tree, `training` into the training part."""
    training = TRAINING | changes.pop("training", {})
    width = {} if model.startswith("mobilenet") else {"width": 4}
    squeeze = {"model": {"name": model} | width, "training": training}
    squeeze |= changes.pop("squeeze", {})
    return RunConfig.model_validate(TREE | {"squeeze": squeeze} | changes)


def split(count: int, seed: int) -> Labelled:
    """Return images whose class is the channel that is bright, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, 3, 16, 16))
    pixels[np.arange(count), labels] += 90
    return Labelled(pixels.astype(np.uint8), labels)


TRAIN, TEST = split(50, 0), split(30, 1)
