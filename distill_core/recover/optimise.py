"""Recover: optimise the pixels of batches through a frozen teacher.

A step is one function (`recover.step`); what belongs to one batch is `recover.course`; here is the
loop over steps, which several batches go through together. Which images share a batch is decided by
the plan, because statistics pool over it; which batches share a launch is a matter of speed alone.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.models.teacher import FrozenTeacher
from distill_core.progress import Progress, silent
from distill_core.recover.batch import BatchRecovery, RecoveredBatch
from distill_core.recover.cudagraph import Step, steps_on
from distill_core.recover.goals import check_batch_norms
from distill_core.recover.schedule import segments_of
from distill_core.sharding import Batch
from distill_core.storage.statistics_files import Expected

TRACE_POINTS = 50  # loss values kept per batch
SNAPSHOTS = (0.0, 0.05, 0.25, 0.5, 1.0)  # fractions of the steps shown in the evolution strip


def recover_batch(
    batch: Batch,
    *,
    config: RecoverConfig,
    teachers: Sequence[FrozenTeacher],
    seed: int,
    start: np.ndarray | None,
    device: str | torch.device,
    expected: Sequence[Expected] = (),
    student: FrozenTeacher | None = None,
    progress: Progress = silent,
) -> RecoveredBatch:
    """Make the images of one batch; see `recover_together`."""
    (made,) = recover_together(
        [batch],
        config=config,
        teachers=teachers,
        seed=seed,
        starts=[start],
        device=device,
        expected=[expected],
        student=student,
        progress=progress,
    )
    return made


def recover_together(
    batches: Sequence[Batch],
    *,
    config: RecoverConfig,
    teachers: Sequence[FrozenTeacher],
    seed: int,
    starts: Sequence[np.ndarray | None],
    device: str | torch.device,
    expected: Sequence[Sequence[Expected]] = (),
    student: FrozenTeacher | None = None,
    progress: Progress = silent,
    steps_on: Callable[[torch.device], Step] = steps_on,
) -> tuple[RecoveredBatch, ...]:
    """Make the images of several batches in one launch; the same arguments give the same bytes.

    On a CPU the bytes of a batch do not depend on the others either; on a GPU they may, by the
    rounding of kernels that are chosen by size.

    Args:
        batches: which images, in order; batches that `launches` puts together.
        config: steps, terms, views and update; 0 steps return the start unchanged.
        teachers: frozen, on `device`; they take turns, one a step, unless `config.committee`.
        seed: the run's seed.
        starts: by batch, (B, 3, S, S) uint8 real images, or None for gaussian noise.
        device: where to compute.
        expected: what terms hold a batch against, from real images, by batch and teacher.
        student: whom `adversarial` asks, frozen, on `device`; without one there is no such term.
        progress: told after every traced step.
        steps_on: how the steps of a segment are taken on a device.

    Raises:
        ConfigError: a term needs batch norm statistics and no teacher has any.
        DivergedError: a loss or an image stopped being finite.

    Source: arXiv:2306.13092 (SRe2L) section 3.2; arXiv:2311.18838 (CDA) section 3; segments and
    residuals of FADRM (NeurIPS 2025), section 3; late groups of arXiv:2411.19946 (DELT).
    Differs from the published code: the last iterate is kept and called so; no image priors; the
    random window of a step is drawn from counters, not from a global generator; a late group has
    an optimiser state of its own, so its first steps are corrected for bias; several batches in
    one launch keep statistics and losses of their own.
    """
    check_batch_norms(config, teachers)
    real = expected or [()] * len(batches)
    recoveries = [
        BatchRecovery(batch, config, teachers, seed, torch.device(device), of_batch, student)
        for batch, of_batch in zip(batches, real, strict=True)
    ]
    images = [recovery.begin(start) for recovery, start in zip(recoveries, starts, strict=True)]
    if config.steps:
        images = _optimise(recoveries, images, config, progress, steps_on)
    return tuple(recovery.result(made) for recovery, made in zip(recoveries, images, strict=True))


def _optimise(
    recoveries: Sequence[BatchRecovery],
    starts: Sequence[Tensor],
    config: RecoverConfig,
    progress: Progress,
    steps_on: Callable[[torch.device], Step],
) -> list[Tensor]:
    """Take every step; return the last iterates, (B, 3, S, S) each."""
    every = max(1, config.steps // TRACE_POINTS)
    shown = {round(share * config.steps) for share in SNAPSHOTS}
    images = list(starts)
    for segment in segments_of(config, recoveries[0].side):
        pixels = [
            recovery.enter(segment, *pair)
            for recovery, *pair in zip(recoveries, images, starts, strict=True)
        ]
        pairs, take = list(zip(recoveries, pixels, strict=True)), steps_on(recoveries[0].device)
        for step in range(segment.first, segment.stop):
            if step in shown:
                for recovery, parameters in pairs:
                    recovery.show(parameters.images(), step)
            values = take(
                [recovery.part(parameters, step, segment.side) for recovery, parameters in pairs]
            )
            for parameters in pixels:
                parameters.follow()
            if step % every == 0 or step == config.steps - 1:
                for recovery, of_batch in zip(recoveries, values, strict=True):
                    recovery.note(step, of_batch)
                progress(step + 1, config.steps)
        images = [parameters.images() for parameters in pixels]
    return [recovery.leave(made) for recovery, made in zip(recoveries, images, strict=True)]
