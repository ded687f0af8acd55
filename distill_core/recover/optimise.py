"""Recover: optimise the pixels of batches through frozen teachers.

A step is one function (`recover.step`), the state of one batch is `recover.batch`; here is the loop
over steps, which several batches go through together. The plan decides which images share a batch,
because statistics pool over it; which batches share a launch affects speed only.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from distill_core.progress import Progress, silent
from distill_core.recover.batch import BatchRecovery, RecoveredBatch
from distill_core.recover.cudagraph import Step, steps_on
from distill_core.recover.pixels import segments_of
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.trace import is_traced, snapshot_steps
from distill_core.sharding import Batch
from distill_core.storage.statistics_files import Expected


def recover_batch(
    batch: Batch,
    setup: RecoverySetup,
    *,
    start: np.ndarray | None = None,
    real: Sequence[Expected] = (),
    progress: Progress = silent,
) -> RecoveredBatch:
    """Make the images of one batch; see `recover_together`."""
    (recovered,) = recover_together([batch], setup, starts=[start], real=[real], progress=progress)
    return recovered


def recover_together(
    batches: Sequence[Batch],
    setup: RecoverySetup,
    *,
    starts: Sequence[np.ndarray | None],
    real: Sequence[Sequence[Expected]] = (),
    progress: Progress = silent,
    steps_on: Callable[[torch.device], Step] = steps_on,
) -> tuple[RecoveredBatch, ...]:
    """Make the images of several batches in one launch; the same arguments give the same bytes.

    On a CPU the bytes of a batch do not depend on the others either; on a GPU they may, by the
    rounding of kernels that are chosen by size.

    Args:
        batches: which images, in order; batches that `launches` puts together.
        setup: config, teachers and seed of the recovery.
        starts: by batch, (B, 3, S, S) uint8 real images, or None for gaussian noise.
        real: statistics of real images that terms compare with, by batch and teacher.
        progress: called after every traced step with (steps done, steps in total).
        steps_on: gives the function that takes the steps of a segment on a device.

    Raises:
        ConfigError: a term compares with real images, and there are no statistics of them.
        DivergedError: a loss or an image stopped being finite.

    Source: arXiv:2306.13092 (SRe2L) section 3.2; arXiv:2311.18838 (CDA) section 3; segments and
    residuals of FADRM (NeurIPS 2025), section 3; late groups of arXiv:2411.19946 (DELT).
    Differs from the published code: the last iterate is kept and called so; no image priors; the
    random window of a step is drawn from counters, not from a global generator; a late group has
    an optimiser state of its own, so its first steps are corrected for bias; several batches in
    one launch keep statistics and losses of their own.
    """
    recoveries = [
        BatchRecovery(batch, setup, expected)
        for batch, expected in zip(batches, real or [()] * len(batches), strict=True)
    ]
    images = [
        recovery.start_images(start) for recovery, start in zip(recoveries, starts, strict=True)
    ]
    if setup.config.steps:
        images = _optimise(recoveries, images, progress, steps_on)
    return tuple(recovery.result(last) for recovery, last in zip(recoveries, images, strict=True))


def _optimise(
    recoveries: Sequence[BatchRecovery],
    starts: Sequence[Tensor],
    progress: Progress,
    steps_on: Callable[[torch.device], Step],
) -> list[Tensor]:
    """Take every step; return the last iterates, (B, 3, S, S) each."""
    config, images = recoveries[0].config, list(starts)
    snapshots = snapshot_steps(config.steps)
    for segment in segments_of(config, recoveries[0].side):
        pixels = [
            recovery.start_segment(segment, *pair)
            for recovery, *pair in zip(recoveries, images, starts, strict=True)
        ]
        pairs = list(zip(recoveries, pixels, strict=True))
        take_step = steps_on(recoveries[0].like.device)
        for step in range(segment.first, segment.stop):
            if step in snapshots:
                for recovery, parameters in pairs:
                    recovery.record_snapshot(step, parameters.images())
            values = take_step([recovery.part(parameters, step) for recovery, parameters in pairs])
            for parameters in pixels:
                parameters.update_average()
            if is_traced(step, config.steps):
                for recovery, losses in zip(recoveries, values, strict=True):
                    recovery.record_losses(step, losses)
                progress(step + 1, config.steps)
        images = [parameters.images() for parameters in pixels]
    return [recovery.finish(last) for recovery, last in zip(recoveries, images, strict=True)]
