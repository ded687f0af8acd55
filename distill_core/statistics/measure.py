"""Measure what the real images of one class do to a teacher.

One pass over the images, in eval mode, without augmentation.

Source: LPLD (NeurIPS 2024), class-wise statistics. Differs from the published code: sums over all
images of a class in float64 instead of a moving average over batches, so the order of images does
not matter.

Axes: n images of a class, ch channels of a layer, P patches, k points, D features.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from distill_core.config.terms import Measured, OriginalsConfig
from distill_core.errors import ConfigError
from distill_core.models.convolutions import Probe
from distill_core.models.moments import PATCH_SIDE, MeanVar
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.statistics.barycentre import barycentre
from distill_core.storage.statistics_files import Rows
from distill_core.transforms.pixel_space import PixelSpace

BATCH_NORMS: frozenset[Measured] = frozenset({"batch_norms"})
FORWARD_BATCH = 100  # images per teacher forward; part of the numerics, as in `describe`


@torch.no_grad()
def measure_class(
    pixels: np.ndarray,
    teacher: FrozenTeacher,
    *,
    device: str | torch.device,
    measured: Collection[Measured] = BATCH_NORMS,
    points: int = 0,
    patch: int = PATCH_SIDE,
    rng: np.random.Generator | None = None,
) -> Rows:
    """Return what one class does to a teacher, by name, see `storage.statistics_files`.

    Args:
        pixels: (n, 3, S, S) uint8, every image of the class.
        teacher: frozen, on `device`.
        device: where to compute.
        measured: what is asked for.
        points: k, of the barycentre.
        patch: activations per side of a patch.
        rng: where the barycentre begins.
    """
    asked = {kind: kind in measured for kind in ("channels", "patches")}
    probe = Probe(**asked, patch_side=patch) if any(asked.values()) else None
    space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, teacher.head.weight)
    sums: dict[str, Tensor] = {}  # (2, ...) of means and of squares, float64, on the device
    features = []
    for start in range(0, len(pixels), FORWARD_BATCH):
        part = torch.from_numpy(pixels[start : start + FORWARD_BATCH]).to(device)
        said = teacher(
            space.normalise(part),
            statistics="batch_norms" in measured,
            probe=probe,
        )
        features.append(said.features)
        for name, (mean, var) in _seen(said).items():
            wide, share = mean.double(), len(part) / len(pixels)
            seen = share * torch.stack([wide, var.double() + wide**2])
            sums[name] = sums[name] + seen if name in sums else seen
    rows: dict[str, np.ndarray] = {}
    for name, both in sums.items():
        first, second = both.cpu().numpy()
        rows |= {f"{name}.mean": first, f"{name}.var": second - first**2}
    if "barycentre" in measured:
        assert rng is not None
        rows["barycentre"] = barycentre(torch.cat(features), points, rng).cpu().numpy()
    return rows


@torch.no_grad()
def describe_originals(
    pixels: np.ndarray,
    teacher: FrozenTeacher,
    config: OriginalsConfig,
    *,
    count: int,
    device: str | torch.device,
) -> np.ndarray:
    """Return the features that tiles are to keep, (count, D).

    Args:
        pixels: (n, 3, S, S) uint8, the real images in the order in which mosaics use them; where
            there are fewer than `count`, they are used again, as in a mosaic.
        teacher: frozen, on `device`.
        config: where the features are read.
        count: tiles of all images of the class.
        device: where to compute.

    Raises:
        ConfigError: the teacher has no such convolution.
    """
    if config.layer >= teacher.num_convolutions:
        raise ConfigError(
            f"recover.originals.layer = {config.layer}: {teacher.spec.model.title} has "
            f"convolutions 0 to {teacher.num_convolutions - 1}. Choose one of them."
        )
    probe = Probe(layer=config.layer, grid=config.grid)
    space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, teacher.head.weight)
    images, found = pixels[:count], []
    for start in range(0, len(images), FORWARD_BATCH):
        part = torch.from_numpy(images[start : start + FORWARD_BATCH]).to(device)
        features = teacher(space.normalise(part), probe=probe).convolutions.features
        assert features is not None
        found.append(features.cpu().numpy())
    rows: np.ndarray = np.concatenate(found)[np.arange(count) % len(images)]
    return rows


def _seen(said: TeacherOutput) -> dict[str, MeanVar]:
    """Return every mean and variance of one forward pass by the name of its layer."""
    norms = {f"{n:03d}": (s.mean, s.var) for n, s in enumerate(said.statistics)}
    channels = {f"channels/{n:03d}": seen for n, seen in said.convolutions.channels.items()}
    patches = {f"patches/{n:03d}": seen for n, seen in said.convolutions.patches.items()}
    return norms | channels | patches
