"""Validate: the final judgement of a student on a block of real test images, as counts.

Counts of disjoint blocks add up to those of the whole split, exactly; percents would not.
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
    """Count how many images of a block a student gets right.

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
        DataError: they are none.
    """
    try:
        return {
            name: {int(label): Hits(**hits) for label, hits in counts.items()}
            for name, counts in json.loads(data).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: {len(data)} bytes that are no counts ({error}).") from error
