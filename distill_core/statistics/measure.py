"""Statistics of the real images of a class under a teacher, as far as the terms of a config need.

One pass over the images, in eval mode, without augmentation.

Source: LPLD (NeurIPS 2024), class-wise statistics. Differs from the published code: sums over all
images of a class in float64 instead of a moving average over batches, so the order of images does
not matter.

Axes: n images of a class, ch channels of a layer, P patches, k points, D features, S side.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.config.terms import Measured, OriginalsConfig
from distill_core.data.streamed import Images
from distill_core.errors import ConfigError
from distill_core.models.convolutions import Probe
from distill_core.models.moments import PATCH_SIDE, MeanVar
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.progress import Progress, silent
from distill_core.seeds import generator, philox_key
from distill_core.selection.class_images import ClassImages, forward_batches, normalised
from distill_core.selection.mosaic import choose_candidates, rank_crops
from distill_core.statistics.barycentre import barycentre
from distill_core.storage.statistics_files import ClassStatistics, Rows

BATCH_NORMS: frozenset[Measured] = frozenset({"batch_norms"})


@dataclass(frozen=True)
class MeasureSetup:
    """The config, the networks and the seed of a measurement.

    Args:
        config: terms, and how mosaics are made.
        teacher: the network whose activations are measured; frozen.
        scorer: the network that chooses the images that mosaics are made of; frozen.
        seed: the run's seed.
        imported: statistics of batch norms that need not be measured; None: there are none.
    """

    config: RecoverConfig
    teacher: FrozenTeacher
    scorer: FrozenTeacher
    seed: int
    imported: ClassStatistics | None = None

    def given(self, wnid: str) -> Rows | None:
        """Return the imported statistics of a class; None: it is measured."""
        return None if self.imported is None else self.imported.of_class(wnid)


def measure_block(
    classes: Sequence[tuple[int, str]],
    images: ClassImages,
    setup: MeasureSetup,
    *,
    progress: Progress = silent,
) -> dict[str, Rows]:
    """Measure each class of a block.

    Args:
        classes: (label, wnid) of each class.
        images: the real images.
        setup: config, networks and seed.
        progress: called with (classes done, classes in total).

    Returns:
        By wnid, in the order of `classes`; see `measure_for_terms`.
    """
    measured = {}
    for number, (label, wnid) in enumerate(classes, start=1):
        measured[wnid] = measure_for_terms(label, wnid, images, setup)
        progress(number, len(classes))
    return measured


def measure_for_terms(label: int, wnid: str, images: ClassImages, setup: MeasureSetup) -> Rows:
    """Return the statistics of one class that the terms of a config need.

    Args:
        label: class id.
        wnid: class name; names the draws.
        images: the real images.
        setup: config, networks and seed.

    Returns:
        Arrays by name, see `distill_core.storage.statistics_files`.
    """
    config, measured = setup.config, dict[str, np.ndarray]()
    wanted = config.measured - {"originals"}
    if "batch_norms" in wanted and (given := setup.given(wnid)) is not None:
        measured |= given
        wanted -= BATCH_NORMS
    if wanted:
        measured |= measure_class(
            images.streamed(images.rows_of(label)),
            setup.teacher,
            measured=wanted,
            patch=PATCH_SIDE if config.convolutions is None else config.convolutions.patch,
            points=0 if config.barycentre is None else config.barycentre.points,
            rng=generator(philox_key(setup.seed, "statistics", f"barycentre/{wnid}")),
        )
    if config.originals is not None and "originals" in config.measured:
        measured["originals"] = _originals(label, wnid, images, setup, config.originals)
    return measured


def _originals(
    label: int, wnid: str, images: ClassImages, setup: MeasureSetup, config: OriginalsConfig
) -> np.ndarray:
    """Return the features of the real images that mosaics are made of, in their order."""
    mosaic = setup.config.mosaic
    assert mosaic is not None
    rows = choose_candidates(images.rows_of(label), wnid, mosaic, seed=setup.seed)
    pixels = images.pixels_of(rows)
    ranked = rank_crops(pixels, label, wnid, config=mosaic, teacher=setup.scorer, seed=setup.seed)
    count = config.images * setup.config.tiles**2
    return describe_originals(pixels[ranked.order], setup.teacher, config, count=count)


@torch.no_grad()
def measure_class(
    pixels: Images,
    teacher: FrozenTeacher,
    *,
    measured: Collection[Measured] = BATCH_NORMS,
    points: int = 0,
    patch: int = PATCH_SIDE,
    rng: np.random.Generator | None = None,
) -> Rows:
    """Return the statistics of one class under a teacher, by name, see `storage.statistics`.

    Args:
        pixels: (n, 3, S, S) uint8, every image of the class.
        teacher: frozen.
        measured: which statistics.
        points: k, of the barycentre.
        patch: activations per side of a patch.
        rng: draws the start of the barycentre; needed only for that.
    """
    kinds = {kind: kind in measured for kind in ("channels", "patches")}
    probe = Probe(**kinds, patch_side=patch) if any(kinds.values()) else None
    sums: dict[str, Tensor] = {}  # (2, ...) of means and of squares, float64, on the device
    features = []
    for part in forward_batches(pixels):
        output = teacher(
            normalised(teacher, part), statistics="batch_norms" in measured, probe=probe
        )
        features.append(output.features)
        for name, (mean, var) in _moments(output).items():
            wide, share = mean.double(), len(part) / len(pixels)
            weighted = share * torch.stack([wide, var.double() + wide**2])
            sums[name] = sums[name] + weighted if name in sums else weighted
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
    pixels: np.ndarray, teacher: FrozenTeacher, config: OriginalsConfig, *, count: int
) -> np.ndarray:
    """Return the features that tiles are to keep, (count, D).

    Args:
        pixels: (n, 3, S, S) uint8, the real images in the order in which mosaics use them; where
            there are fewer than `count`, they are used again, as in a mosaic.
        teacher: frozen.
        config: at which convolution the features are read.
        count: tiles of all images of the class.

    Raises:
        ConfigError: the teacher has no such convolution.
    """
    if config.layer >= teacher.num_convolutions:
        raise ConfigError(
            f"recover.originals.layer = {config.layer}: {teacher.spec.model.title} has "
            f"convolutions 0 to {teacher.num_convolutions - 1}. Choose one of them."
        )
    probe = Probe(layer=config.layer, grid=config.grid)
    images, parts = pixels[:count], []
    for part in forward_batches(images):
        features = teacher(normalised(teacher, part), probe=probe).convolutions.features
        assert features is not None
        parts.append(features.cpu().numpy())
    rows: np.ndarray = np.concatenate(parts)[np.arange(count) % len(images)]
    return rows


def _moments(output: TeacherOutput) -> dict[str, MeanVar]:
    """Return every mean and variance of one forward pass by the name of its layer."""
    norms = {f"{n:03d}": (s.mean, s.var) for n, s in enumerate(output.statistics)}
    channels = {f"channels/{n:03d}": pair for n, pair in output.convolutions.channels.items()}
    patches = {f"patches/{n:03d}": pair for n, pair in output.convolutions.patches.items()}
    return norms | channels | patches
