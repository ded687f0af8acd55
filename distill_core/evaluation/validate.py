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
from torch import nn

from distill_core.config.data import DataConfig
from distill_core.config.training import ModelConfig
from distill_core.data.streamed import Images
from distill_core.errors import DataError
from distill_core.evaluation.accuracy import ClassHits, Hits
from distill_core.evaluation.metrics import EVALUATION_BATCH, count_hits
from distill_core.models.files import load_network
from distill_core.progress import Progress, silent

COUNTED_IMAGES = 2 * EVALUATION_BATCH  # between two sums; the parts in which images are read


def validate_student(
    weights: Mapping[str, bytes],
    images: Images,
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
        images: (n, 3, S, S) uint8; each part is read once for all sets of weights.
        labels: (n,) int64; class ids may have holes.
        student: the architecture of the weights.
        data: number of classes, mean and std.
        device: where to compute.
        progress: called with (images done, images in total); each counts once per set of weights.

    Returns:
        By name, hits of each class that has images.
    """
    models = {name: _network(w, student, data, device) for name, w in weights.items()}
    counted: dict[str, dict[int, Hits]] = {name: {} for name in weights}
    for start in range(0, len(labels), COUNTED_IMAGES):
        rows = slice(start, start + COUNTED_IMAGES)
        part, of_part = images[rows], labels[rows]
        for name, model in models.items():
            hits = count_hits(model, part, of_part, mean=data.mean, std=data.std, device=device)
            for label, more in hits.items():
                counted[name][label] = counted[name].get(label, Hits()) + more
        done = min(start + COUNTED_IMAGES, len(labels))
        progress(done * len(weights), len(labels) * len(weights))
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
    model = _network(weights, student, data, device)
    return count_hits(
        model, images, labels, mean=data.mean, std=data.std, device=device, batch=batch
    )


def _network(
    weights: bytes, student: ModelConfig, data: DataConfig, device: str | torch.device
) -> nn.Module:
    model = load_network(weights, student, num_classes=data.num_classes)
    return model.to(device).to(memory_format=torch.channels_last)


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
