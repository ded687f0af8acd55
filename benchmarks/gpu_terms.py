"""A small recovery for each loss term, on any device; nothing of it is read from a disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_core.config.fields import Precision
from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.config.terms import MEASURED
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.shard import TeacherStatistics, recover_shard
from distill_core.recover.terms import TERMS
from distill_core.selection.class_images import ClassImages
from distill_core.sharding import ImageId
from distill_core.squeeze.result import SqueezedTeacher
from distill_core.statistics.measure import MeasureSetup, measure_block
from distill_core.storage.statistics_files import (
    Rows,
    decode_statistics,
    encode_statistics,
    pooled,
)
from distill_core.training.supervised import Labelled

CLASSES, SIDE, STEPS = 4, 32, 6
BATCHES = [
    tuple(ImageId(label, f"class_{label}", 2 * n + m) for label in range(CLASSES) for m in range(2))
    for n in range(2)
]
CONVOLUTIONS = ("recover.convolutions={first_layer_factor: 10}",)
SETTINGS: Mapping[str, tuple[str, ...]] = {  # what a term needs beside a weight
    **dict.fromkeys((term for term in TERMS if "conv_" in term or "patch_" in term), CONVOLUTIONS),
    "feature_barycentre": ("recover.barycentre={points: 4}",),
    "feature_originals": (
        "recover.init=mosaic",
        "recover.mosaic={images: 20, crops: 1, factor: 2, scale: [1, 1]}",
        "recover.originals={images: 4, layer: 2, grid: 2}",
        "ipc=4",
    ),
    "start_distance": ("recover.init=real",),
    "adversarial": (
        "rounds={student: {name: convnet3, width: 16}, starts: [12], epochs: 1, warm_lr: 0.1}",
        "ipc=20",
    ),
    "flatness": ("recover.flatness={decay: 0.9, temperature: 4}",),
}


def small_run(*overrides: str) -> RunConfig:
    """Return a run over four classes, whose networks are small ConvNets."""
    sizes = (
        f"data.num_classes={CLASSES}",
        f"data.side={SIDE}",
        "recover.batch_size=8",
        "recover.ipc_range=4",
        f"recover.steps={STEPS}",
        "squeeze.model={name: convnet3, width: 16}",
        "squeeze.training.epochs=1",
        "squeeze.training.batch_size=16",
        "posttrain.students=[{name: convnet3, width: 16}]",
        "posttrain.batch_size=8",
    )
    return load_run("digits-demo", (*sizes, *overrides))


def stripes(count: int, *, classes: int = CLASSES, side: int = SIDE, seed: int = 0) -> Labelled:
    """Return noisy stripes, (count, 3, S, S) uint8; the direction of the stripes is the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    angles = (labels * np.pi / classes)[:, None, None]
    rows, columns = np.mgrid[:side, :side]
    phases = rng.uniform(0, 6, angles.shape)
    waves = np.sin(rows * np.cos(angles) + columns * np.sin(angles) + phases)
    images = 128 + 60 * waves[:, None] + rng.normal(0, 40, (count, 3, side, side))
    return Labelled(images.clip(0, 255).astype(np.uint8), labels)


@dataclass(frozen=True)
class TermBench:
    """A teacher, a student and real images, from which every term is computed."""

    teacher: SqueezedTeacher
    student: SqueezedTeacher
    real: Labelled

    def recovered(
        self, term: str, *, device: str, precision: Precision = "float32", compiled: bool = False
    ) -> tuple[RecoveredBatch, ...]:
        """Make two batches by the cross-entropy and one term, on a device."""
        weights = {"cross_entropy": 1.0} | {term: 1.0}
        text = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
        settings = (f"recover.terms={{{text}}}", *SETTINGS.get(term, ()))
        config = small_run(*settings, f"recover.compile={str(compiled).lower()}").recover
        teacher, student = (
            network.frozen(device=device, precision=precision)
            for network in (self.teacher, self.student)
        )
        made = recover_shard(
            BATCHES,
            RecoverySetup(config, [teacher], seed=0, student=student),
            real=self._images() if config.reads_real_images else None,
            statistics=self._statistics(config) if term in MEASURED else (),
        )
        return made.batches

    def _images(self) -> ClassImages:
        rows = [np.flatnonzero(self.real.labels == label) for label in range(CLASSES)]
        return ClassImages(lambda label: rows[label], lambda chosen: self.real.pixels[chosen])

    def _statistics(self, config: Any) -> list[TeacherStatistics]:
        """Measure on the CPU, so that devices differ in the recovery alone."""
        teacher: FrozenTeacher = self.teacher.frozen()
        classes = [(label, f"class_{label}") for label in range(CLASSES)]
        setup = MeasureSetup(config, teacher, teacher, seed=0)
        measured: list[Rows] = list(measure_block(classes, self._images(), setup).values())
        block = decode_statistics(encode_statistics([name for _, name in classes], measured))
        return [TeacherStatistics(block, pooled(measured))]
