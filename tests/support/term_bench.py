"""One step of recover with a single loss term, on tiny batches.

`python -m tests.support.term_bench` prints the value of every term, for a process to compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from distill_core.config.fields import Precision
from distill_core.config.recovery import RecoverConfig
from distill_core.config.terms import Measured
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batch import BatchRecovery
from distill_core.recover.pixels import segments_of
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.step import Part, recover_step
from distill_core.recover.terms import TERMS, Forward
from distill_core.seeds import generator
from distill_core.sharding import Batch, ImageId
from distill_core.statistics.measure import describe_originals, measure_class
from distill_core.storage.statistics_files import (
    ClassStatistics,
    Expected,
    Rows,
    decode_statistics,
    encode_statistics,
    pooled,
)
from tests.support.tiny import CLASSES, SIDE, tiny_recover, tiny_teacher

CONVOLUTIONS = ("recover.convolutions={first_layer_factor: 10, drop_rate: 0.4}",)
MOSAIC = "recover.mosaic={images: 6, crops: 1, factor: 2, scale: [1, 1]}"
SETTINGS: Mapping[str, tuple[str, ...]] = {  # what a term needs beside a weight
    "conv_statistics": CONVOLUTIONS,
    "class_conv_statistics": CONVOLUTIONS,
    "patch_statistics": CONVOLUTIONS,
    "class_patch_statistics": CONVOLUTIONS,
    "feature_barycentre": ("recover.barycentre={points: 3}",),
    "feature_originals": (
        "recover.init=mosaic",
        MOSAIC,
        "recover.originals={images: 6, layer: 2, grid: 2}",
        "ipc=6",
    ),
    "start_distance": ("recover.init=real",),
    "adversarial": (
        "rounds={student: {name: convnet3, width: 8}, starts: [10], epochs: 1, warm_lr: 0.1}",
        "ipc=20",
    ),
    "flatness": ("recover.flatness={decay: 0.9, temperature: 4}",),
}
STEP = 3  # which is taken
TEACHER, STUDENT = 1, 5  # seeds; this teacher gets some of the images right


def batch(first: int = 0) -> Batch:
    """Return two images of class 0, two of class 1 and a single one of class 2."""
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    return tuple(ImageId(label, f"class_{label}", first + n) for label, n in places)


def noise(count: int, *seed: int) -> np.ndarray:
    """Return coarse noise, (count, 3, S, S) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE // 2, SIDE // 2))
    return small.repeat(2, axis=2).repeat(2, axis=3).astype(np.uint8)


def teacher_of(precision: Precision = "float32") -> FrozenTeacher:
    """Return the teacher of the bench, always anew."""
    return tiny_teacher(precision, seed=TEACHER)


def student_of(precision: Precision = "float32") -> FrozenTeacher:
    """Return the student of the `adversarial` term."""
    return tiny_teacher(precision, seed=STUDENT)


def config_of(*terms: str, **weights: float) -> RecoverConfig:
    """Return a config of 20 steps with these terms at weight 1, and others at the given weights."""
    beside = {"cross_entropy": 1.0} if "adversarial" in terms else {}  # it may not be alone
    weighted = dict.fromkeys(terms, 1.0) | beside | weights
    text = ", ".join(f"{name}: {weight}" for name, weight in weighted.items())
    settings = dict.fromkeys(setting for term in terms for setting in SETTINGS.get(term, ()))
    return tiny_recover(f"recover.terms={{{text}}}", "recover.crop.low=0.5", *settings)


@lru_cache(maxsize=1)
def real_images() -> tuple[ClassStatistics, Rows]:
    """Return all that may be measured of every class, and of all together."""
    kinds: frozenset[Measured] = frozenset({"batch_norms", "channels", "patches", "barycentre"})
    teacher, originals = teacher_of("float64"), config_of("feature_originals").originals
    assert originals is not None
    measured = []
    for label in range(CLASSES):
        pixels = noise(6, 1, label)
        found = measure_class(pixels, teacher, measured=kinds, points=3, rng=generator(label))
        described = describe_originals(pixels, teacher, originals, count=24)
        measured.append({**found, "originals": described})
    names = [f"class_{label}" for label in range(CLASSES)]
    return decode_statistics(encode_statistics(names, measured)), pooled(measured)


def expected(images: Batch, config: RecoverConfig) -> Expected:
    """Return what the terms hold a batch against."""
    block, every = real_images()
    return block.of(images, config, every)


@dataclass(frozen=True)
class Step:
    """The result of one step with one term."""

    value: float  # of the term, for the first batch
    gradients: tuple[Tensor, ...]  # by batch, (B, 3, S, S)
    right: np.ndarray  # (B,) bool, whether the teacher sees the class in the first batch's images


def step(
    term: str,
    *,
    precision: Precision = "float32",
    pixels: Sequence[np.ndarray] | None = None,
    weights: Sequence[float] = (1.0,),
) -> Step:
    """Take step 3 of a recovery with one term, on one batch or several that share the launch.

    Args:
        term: its name.
        precision: of the teacher.
        pixels: by batch, (5, 3, S, S) uint8; None: noise.
        weights: of the term, by batch.
    """
    config, teacher, looks = config_of(term), teacher_of(precision), list[Forward]()

    def watched(forward: Forward) -> Tensor:
        looks.append(forward)
        return TERMS[term](forward)

    parts = []
    for number, weight in enumerate(weights):
        images = batch(2 * number)
        real = [expected(images, config)]
        asked = student_of(precision)
        recovery = BatchRecovery(images, RecoverySetup(config, [teacher], 0, asked), real)
        given = noise(len(images), 2, number) if pixels is None else pixels[number]
        start = recovery.start_images(given)
        leaves = recovery.start_segment(segments_of(config, SIDE)[0], start, start)
        part = _compared(recovery.part(leaves, STEP), recovery)
        objective = {term: (weight, watched)}
        parts.append(replace(part, goal=replace(part.goal, objective=objective)))
    values = recover_step(parts)
    gradients = [part.images[0].grad for part in parts]
    right = looks[0].teacher.logits.argmax(dim=1) == looks[0].targets
    return Step(values[0, 0].item(), tuple(g for g in gradients if g is not None), right.numpy())


def _compared(part: Part, recovery: BatchRecovery) -> Part:
    """Give the images others to be compared with, where they are compared."""
    other = recovery.space.normalise(torch.from_numpy(noise(len(recovery.batch), 3)))
    return replace(
        part,
        start=None if part.start is None else other,
        smoothed=None if part.smoothed is None else other,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({term: step(term).value.hex() for term in sorted(TERMS)}))
