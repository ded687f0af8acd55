"""What each class of real images does to a teacher: mean and variance at every batch norm.

One pass over the images of a block of classes, in eval mode, without augmentation; stored as one
safetensors file per block, a row per class.

Source: LPLD (NeurIPS 2024), class-wise statistics. Differs from the published code: sums over all
images of a class in float64 instead of a moving average over batches, so the order of images does
not matter.

Axes: K classes of a block, n images of a class, ch channels of a layer, B images of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from distill_core.errors import DataError
from distill_core.models.teacher import FrozenTeacher
from distill_core.pixel_space import PixelSpace

FORWARD_BATCH = 100  # images per teacher forward; part of the numerics, as in `describe`
Moments = tuple[tuple[np.ndarray, np.ndarray], ...]  # (mean, biased variance), each (ch,), by layer


@dataclass(frozen=True)
class ClassStatistics:
    """The moments of the classes of one block, float32."""

    wnids: tuple[str, ...]  # K
    moments: tuple[tuple[np.ndarray, np.ndarray], ...]  # (K, ch) each, by layer

    def of(self, wnids: Sequence[str]) -> Moments:
        """Return the moments that a batch of these classes is held against: their averages.

        Raises:
            DataError: a class is not in this block.
        """
        places = {wnid: row for row, wnid in enumerate(self.wnids)}
        if missing := sorted(set(wnids) - places.keys()):
            raise DataError(
                f"class statistics: no class {missing[0]!r} among {self.wnids[0]} to "
                f"{self.wnids[-1]}. Read the block of that class."
            )
        rows = [places[wnid] for wnid in wnids]
        return tuple(
            (mean[rows].mean(axis=0), var[rows].mean(axis=0)) for mean, var in self.moments
        )


@torch.no_grad()
def measure_class(
    pixels: np.ndarray, teacher: FrozenTeacher, *, device: str | torch.device
) -> Moments:
    """Return the moments of one class at every batch norm of a teacher.

    Args:
        pixels: (n, 3, S, S) uint8, every image of the class.
        teacher: frozen, on `device`, with batch norms.
        device: where to compute.
    """
    space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, teacher.head.weight)
    first: list[np.ndarray] = [np.zeros(1)] * teacher.num_statistics
    second = list(first)
    for start in range(0, len(pixels), FORWARD_BATCH):
        part = torch.from_numpy(pixels[start : start + FORWARD_BATCH]).to(device)
        seen = teacher(space.normalise(part), statistics=True).statistics
        for layer, statistics in enumerate(seen):
            mean, var = _double(statistics.mean), _double(statistics.var)
            first[layer] = first[layer] + len(part) / len(pixels) * mean
            second[layer] = second[layer] + len(part) / len(pixels) * (var + mean**2)
    return tuple((mean, square - mean**2) for mean, square in zip(first, second, strict=True))


def encode_statistics(wnids: Sequence[str], measured: Sequence[Moments]) -> bytes:
    """Return the file of a block; the same moments give the same bytes.

    Args:
        wnids: K classes.
        measured: K times the moments of a class.
    """
    tensors = {}
    for layer in range(len(measured[0])):
        for part, name in enumerate(("mean", "var")):
            rows = np.stack([one[layer][part] for one in measured])
            tensors[f"{layer:03d}.{name}"] = rows.astype(np.float32)
    return save(tensors, metadata={"wnids": json.dumps(list(wnids))})


def decode_statistics(data: bytes, *, where: str = "class statistics") -> ClassStatistics:
    """Read the file of a block back.

    Raises:
        DataError: it is not one.
    """
    try:
        tensors, wnids = load(data), _wnids(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{where}: {len(data)} bytes that are no class statistics.") from error
    layers = sorted({name.partition(".")[0] for name in tensors})
    moments = tuple((tensors[f"{layer}.mean"], tensors[f"{layer}.var"]) for layer in layers)
    return ClassStatistics(tuple(wnids), moments)


def _wnids(data: bytes) -> list[str]:
    """Return the class names from the header, which `load` does not give."""
    length = int.from_bytes(data[:8], "little")
    names: list[str] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["wnids"])
    return names


def _double(values: Tensor) -> np.ndarray:
    found: np.ndarray = values.double().cpu().numpy()
    return found
