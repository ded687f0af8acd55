"""Recover: optimise the pixels of one batch through a frozen teacher.

A step is one function (`recover.step`); here are the loop over steps, the schedules and what is
kept of them. Which images share a batch is decided by the plan, because statistics pool over it.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from distill_core.config.recovery import PerturbConfig, RecoverConfig
from distill_core.curricula import cosine_lr, crop_low
from distill_core.errors import ConfigError, DivergedError
from distill_core.models.teacher import FrozenTeacher
from distill_core.pixel_space import PixelSpace
from distill_core.plan import Batch
from distill_core.progress import Progress, silent
from distill_core.recover.leaves import Leaves
from distill_core.recover.perturb import perturbed
from distill_core.recover.schedule import Segment, segments_of
from distill_core.recover.start import gaussian
from distill_core.recover.step import Goal
from distill_core.recover.terms import NEEDS_STATISTICS, Forward, bn_statistics, build_objective
from distill_core.seeds import generator, philox_key
from distill_core.views import View, apply_view, sample_view

Moments = Sequence[tuple[np.ndarray, np.ndarray]]  # (mean, variance), each (ch,), by layer
TRACE_POINTS = 50  # loss values kept per batch
SNAPSHOTS = (0.0, 0.05, 0.25, 0.5, 1.0)  # fractions of the steps shown in the evolution strip


@dataclass(frozen=True)
class RecoveredBatch:
    """The images of one batch, and how they came about."""

    pixels: np.ndarray  # (B, 3, S, S) uint8
    losses: Mapping[str, np.ndarray]  # final value of each loss, (B,) float32
    trace: tuple[dict[str, float], ...]  # step, low, lr, each term, total
    snapshots: tuple[tuple[int, float, np.ndarray], ...]  # (step, low, (3, S, S) uint8)


def recover_batch(
    batch: Batch,
    *,
    config: RecoverConfig,
    teachers: Sequence[FrozenTeacher],
    seed: int,
    start: np.ndarray | None,
    device: str | torch.device,
    class_moments: Sequence[Moments] = (),
    progress: Progress = silent,
) -> RecoveredBatch:
    """Make the images of one batch; the same arguments give the same bytes on a CPU.

    Args:
        batch: which images, in order.
        config: steps, terms, views and update; 0 steps return the start unchanged.
        teachers: frozen, on `device`; they take turns, one a step.
        seed: the run's seed.
        start: (B, 3, S, S) uint8 real images, or None for gaussian noise.
        device: where to compute.
        class_moments: what `class_bn_statistics` holds the batch against, by teacher and layer.
        progress: told after every traced step.

    Raises:
        ConfigError: a term needs batch norm statistics and the teacher has none.
        DivergedError: a loss or an image stopped being finite.

    Source: arXiv:2306.13092 (SRe2L) section 3.2; arXiv:2311.18838 (CDA) section 3; segments and
    residuals of FADRM (NeurIPS 2025), section 3; late groups of arXiv:2412.09959 (DELT).
    Differs from the published code: the last iterate is kept and called so; no image priors; the
    random window of a step is drawn from counters, not from a global generator; a late group has
    an optimiser state of its own, so its first steps are corrected for bias.
    """
    run = _Loop(batch, config, teachers, seed, torch.device(device), class_moments)
    images = run.start(start)
    if config.steps:
        images = run.optimise(images, progress)
    return run.result(images)


class _Loop:
    """The loop over steps of one batch: schedules, draws, traces."""

    def __init__(
        self,
        batch: Batch,
        config: RecoverConfig,
        teachers: Sequence[FrozenTeacher],
        seed: int,
        device: torch.device,
        class_moments: Sequence[Moments],
    ) -> None:
        self.batch, self.config, self.seed, self.device = batch, config, seed, device
        self.side = teachers[0].spec.side
        self.like = torch.empty(0, dtype=teachers[0].head.weight.dtype, device=device)
        self.views = philox_key(seed, "recover", "views", batch)
        moments = class_moments or [()] * len(teachers)
        self.goals = [self._goal(*each) for each in zip(teachers, moments, strict=True)]
        self.space = self.goals[0].space
        self.trace: list[tuple[int, Tensor]] = []
        self.snapshots: list[tuple[int, float, np.ndarray]] = []

    def _goal(self, teacher: FrozenTeacher, class_moments: Moments) -> Goal:
        config, objective = self.config, build_objective(self.config.terms)
        if objective.keys() & NEEDS_STATISTICS and not teacher.num_statistics:
            raise ConfigError(
                f"recover.terms: {teacher.spec.model.title} has no batch norm layer, bn_statistics "
                "needs one. Use a teacher with batch norm, or drop the term."
            )
        return Goal(
            torch.tensor([image.label for image in self.batch], device=self.device),
            teacher,
            objective,
            PixelSpace.of(teacher.spec.mean, teacher.spec.std, self.like),
            first_layer_factor=config.first_layer_factor,
            variance_factor=config.variance_factor,
            temperature=1.0 if config.flatness is None else config.flatness.temperature,
            class_moments=tuple(
                (self.like.new_tensor(mean), self.like.new_tensor(var))
                for mean, var in class_moments
            ),
        )

    def start(self, real: np.ndarray | None) -> Tensor:
        """Return the images before the first step, (B, 3, S, S) in normalised space."""
        if real is not None:
            return self.space.normalise(torch.from_numpy(real).to(self.device))
        noise = gaussian(self.batch, self.side, seed=self.seed)
        return torch.from_numpy(noise).to(self.device, self.like.dtype)

    def optimise(self, start: Tensor, progress: Progress) -> Tensor:
        """Take every step; return the last iterate, (B, 3, S, S)."""
        images = start
        if self.config.perturb is not None:
            self._perturb(start, self.config.perturb)
        for number, segment in enumerate(segments_of(self.config, self.side)):
            anchor = resized(start, segment.side)
            images = resized(images, segment.side)
            if number and self.config.residual:
                images = torch.lerp(images, anchor, self.config.residual)
            images = self._segment(segment, images, anchor, progress)
        images = resized(images, self.side)
        self._check("image after the last step", images)  # the last loss came before it
        self._snapshot(images, self.config.steps)
        return images

    def _segment(
        self, segment: Segment, images: Tensor, anchor: Tensor, progress: Progress
    ) -> Tensor:
        config, steps = self.config, self.config.steps
        every = max(1, steps // TRACE_POINTS)
        shown = {round(share * steps) for share in SNAPSHOTS}
        leaves = Leaves(images, anchor, self.batch, self.goals, config)
        for step in range(segment.first, segment.stop):
            if step in shown:
                self._snapshot(resized(leaves.images(), self.side), step)
            values = leaves.step(step, view=self._view(step, segment.side), lr=self._lr(step))
            if step % every == 0 or step == steps - 1:
                self.trace.append((step, values))
                self._check(f"loss at step {step}", values)
                progress(step + 1, steps)
        return leaves.images()

    def result(self, images: Tensor) -> RecoveredBatch:
        """Round to pixels, and judge the unaugmented images once."""
        pixels = self.space.quantise(images.detach())
        names = (*self.goals[0].objective, "total")
        trace = tuple(
            {"step": step, "low": self._low(step), "lr": self._lr(step)}
            | dict(zip(names, values.tolist(), strict=True))
            for step, values in self.trace
        )
        losses = self._final_losses(pixels)
        return RecoveredBatch(pixels.cpu().numpy(), losses, trace, tuple(self.snapshots))

    def _perturb(self, start: Tensor, config: PerturbConfig) -> None:
        """Move the teachers uphill on the first view of the batch; the stored ones stay."""
        pixels = apply_view(start, self._view(0, self.side), out=self.side)
        self.goals = [
            replace(goal, teacher=perturbed(goal.teacher, pixels, goal.targets, config))
            for goal in self.goals
        ]

    def _low(self, step: int) -> float:
        """Return the lower bound of the crop area; 1 without a crop."""
        crop = self.config.crop
        return 1.0 if crop is None else crop_low(crop, step, self.config.steps)

    def _lr(self, step: int) -> float:
        return cosine_lr(self.config.lr, step, self.config.steps)

    def _view(self, step: int, side: int) -> View:
        """Draw the view of a step for the whole batch."""
        crop = self.config.crop
        return sample_view(
            generator(self.views, step),
            count=len(self.batch),
            side=side,
            scale=None if crop is None else (self._low(step), crop.high),
            flip=self.config.flip,
            roll=self.config.roll,
            shared=self.config.shared_view,
        )

    @torch.no_grad()
    def _final_losses(self, pixels: Tensor) -> dict[str, np.ndarray]:
        """Return each image's cross-entropy, and the batch's statistics gap where there is one."""
        teacher, targets = self.goals[0].teacher, self.goals[0].targets
        measured = bool(teacher.num_statistics)
        output = teacher(self.space.normalise(pixels), statistics=measured)
        losses = {"cross_entropy": cross_entropy(output.logits, targets, reduction="none")}
        if measured:
            forward = Forward(pixels, targets, output, self.config.first_layer_factor)
            losses["bn_statistics"] = bn_statistics(forward).expand(len(self.batch))
        for name, values in losses.items():
            self._check(f"final {name}", values)
        return {name: values.float().cpu().numpy() for name, values in losses.items()}

    def _snapshot(self, images: Tensor, step: int) -> None:
        first = self.space.quantise(images.detach()[:1])[0].cpu().numpy()
        self.snapshots.append((step, self._low(min(step, self.config.steps)), first))

    def _check(self, what: str, values: Tensor) -> None:
        if bool(values.isfinite().all()):
            return
        first, last = self.batch[0], self.batch[-1]
        raise DivergedError(
            f"recover: the {what} of the batch {first.wnid}/{first.ipc_index} .. "
            f"{last.wnid}/{last.ipc_index} is not finite. "
            "Lower recover.lr; the same seed will do it again."
        )


def resized(images: Tensor, side: int) -> Tensor:
    """Return (B, 3, side, side), bilinear without antialiasing; the same tensor if it fits."""
    if images.shape[-1] == side:
        return images
    return interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
