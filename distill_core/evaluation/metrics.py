"""The accuracy of a network on a block of images, as counts.

Axes: n images, B in a batch, C classes, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from distill_core.config.fields import Triple
from distill_core.evaluation.accuracy import Hits
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.upload import upload

EVALUATION_BATCH = 500  # images per forward pass; a memory setting


def is_hit(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether each of B images is right at top-1 and at top-5, (B, 2) bool.

    Args:
        logits: (B, C); with fewer than five classes top-5 counts all of them.
        labels: (B,) int64.
    """
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = top == labels[:, None]
    return torch.stack([hits[:, 0], hits.any(dim=1)], dim=1)


@torch.no_grad()
def count_hits(
    model: nn.Module,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    mean: Triple,
    std: Triple,
    device: str | torch.device,
    batch: int = EVALUATION_BATCH,
) -> dict[int, Hits]:
    """Count the hits of a network in eval mode on unaugmented images; its mode is restored.

    Args:
        model: maps normalised (B, 3, S, S) to logits (B, C).
        pixels: (n, 3, S, S) uint8.
        labels: (n,) int64; class ids may have holes.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        device: where the network is.
        batch: images per forward pass.

    Returns:
        Hits of each class that has images, by class id.
    """
    hits = [torch.zeros(0, 2, dtype=torch.bool, device=device)]
    batches = logits_of(model, pixels, mean=mean, std=std, device=device, batch=batch)
    for start, logits in batches:
        hits.append(is_hit(logits, upload(labels[start : start + batch], device)))
    return _by_class(torch.cat(hits).cpu().numpy(), labels)


@torch.no_grad()
def logits_of(
    model: nn.Module,
    pixels: np.ndarray,
    *,
    mean: Triple,
    std: Triple,
    device: str | torch.device,
    batch: int = EVALUATION_BATCH,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first image, logits (B, C)) of unaugmented images; see `count_hits`."""
    dtype = next(model.parameters()).dtype
    space = PixelSpace.of(mean, std, torch.empty(0, dtype=dtype, device=device))
    was_training = model.training
    model.eval()
    for start in range(0, len(pixels), batch):
        part = upload(pixels[start : start + batch], device)
        yield start, model(space.normalise(part).to(memory_format=torch.channels_last))
    model.train(was_training)


def _by_class(hits: np.ndarray, labels: np.ndarray) -> dict[int, Hits]:
    """Sum the hits, (n, 2) bool, of the images of each class."""
    classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    top1, top5 = (np.bincount(places[hits[:, k]], minlength=len(classes)) for k in range(2))
    return {
        int(label): Hits(*map(int, numbers))
        for label, *numbers in zip(classes, counts, top1, top5, strict=True)
    }
