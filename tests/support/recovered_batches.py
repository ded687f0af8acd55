"""Batches that are recovered in one launch, under every setting that changes a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.optimise import recover_together
from distill_core.recover.setup import RecoverySetup
from distill_core.sharding import Batch
from tests.support.tiny import CLASSES, SIDE, tiny_batch, tiny_recover, tiny_teacher

BATCHES = [tiny_batch(ipc_index) for ipc_index in range(4)]
RAGGED = [tiny_batch(0), tiny_batch(1, classes=2), tiny_batch(2, classes=3)]
AXES: dict[str, tuple[str, ...]] = {
    "curriculum": (),
    "images of their own view": ("recover.shared_view=false",),
    "segments with residuals": (
        "recover.segments=[{steps: 8, side: 12}, {steps: 12}]",
        "recover.residual=0.5",
    ),
    "late groups": ("recover.late_groups=2", "recover.ipc_range=2"),
    "flatness": (
        "recover.terms={cross_entropy: 1.0, bn_statistics: 0.1, flatness: 0.25}",
        "recover.flatness={decay: 0.9, temperature: 4.0}",
    ),
    "averaged statistics": ("recover.statistics_decay=0.4",),
    "start": ("recover.init=real", "recover.terms={cross_entropy: 1.0, start_distance: 1.0}"),
}


def together(
    batches: list[Batch], *overrides: str, teachers: Sequence[FrozenTeacher] = (), **changes: Any
) -> tuple[RecoveredBatch, ...]:
    config = tiny_recover(*overrides)
    real = np.arange(CLASSES * 3 * SIDE * SIDE).reshape(CLASSES, 3, SIDE, SIDE) * 7 % 256
    start = real.astype(np.uint8) if config.reads_real_images else None
    starts = [None if start is None else start[: len(batch)] for batch in batches]
    setup = RecoverySetup(config, teachers or [tiny_teacher()], seed=0)
    return recover_together(batches, setup, starts=starts, **changes)
