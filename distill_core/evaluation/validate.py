"""Validate: the final accuracy of a student on a block of real test images, as counts.

Counts of disjoint blocks add up to those of the whole split, exactly; percentages would not.

Axes: n images of the block, S side in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch

from distill_core.config.data import DataConfig
from distill_core.config.training import ModelConfig
from distill_core.errors import DataError
from distill_core.evaluation.accuracy import ClassHits, Hits
from distill_core.evaluation.metrics import EVALUATION_BATCH, count_hits
from distill_core.models.files import load_network
from distill_core.progress import Progress, silent


def validate_student(
    weights: Mapping[str, bytes],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    student: ModelConfig,
    data: DataConfig,
    device: str | torch.device,
    progress: Progress = silent,
) -> dict[str, dict[int, Hits]]:
    """Count the hits of each set of weights of a student on a block.

    Args:
        weights: by name, see `validate`.
        images: (n, 3, S, S) uint8.
        labels: (n,) int64; class ids may have holes.
        student: the architecture of the weights.
        data: number of classes, mean and std.
        device: where to compute.
        progress: called with (images done, images in total), once per set of weights.

    Returns:
        By name, hits of each class that has images.
    """
    counted: dict[str, dict[int, Hits]] = {}
    for name, stored in weights.items():
        counted[name] = validate(stored, images, labels, student=student, data=data, device=device)
        progress(len(labels) * len(counted), len(labels) * len(weights))
    return counted


def validate(
    weights: bytes,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    student: ModelConfig,
    data: DataConfig,
    device: str | torch.device,
    batch: int = EVALUATION_BATCH,
) -> dict[int, Hits]:
    """Count the hits of one student on a block.

    Blocks of whole batches repeat the forward passes of the undivided split; others may round
    differently, which matters to images on the very edge between two classes.

    Args:
        weights: safetensors, as post-train stored them.
        images: (n, 3, S, S) uint8.
        labels: (n,) int64; class ids may have holes.
        student: the architecture of the weights.
        data: number of classes, mean and std.
        device: where to compute.
        batch: images per forward pass.

    Returns:
        Hits of each class that has images, by class id.
    """
    model = load_network(weights, student, num_classes=data.num_classes)
    model = model.to(device).to(memory_format=torch.channels_last)
    return count_hits(
        model, images, labels, mean=data.mean, std=data.std, device=device, batch=batch
    )


def encode_counts(counted: Mapping[str, ClassHits]) -> bytes:
    """Return the counts of some networks as JSON; equal counts give equal bytes.

    Args:
        counted: by what the weights are: ``last``, ``ema``.
    """
    tree = {
        name: {str(label): asdict(hits) for label, hits in sorted(counts.items())}
        for name, counts in counted.items()
    }
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def decode_counts(data: bytes, *, where: str = "validation") -> dict[str, dict[int, Hits]]:
    """Read counts back.

    Raises:
        DataError: these are not counts.
    """
    try:
        return {
            name: {int(label): Hits(**hits) for label, hits in counts.items()}
            for name, counts in json.loads(data).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: {len(data)} bytes that are not counts ({error}).") from error
