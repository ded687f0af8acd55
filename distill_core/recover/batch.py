"""The course of one batch through recover: its goals, its draws, and what is kept of its steps.

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
from distill_core.errors import DivergedError
from distill_core.models.ensemble import voters
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.goals import goal_of, skipped_convolutions
from distill_core.recover.pixels import PixelParameters
from distill_core.recover.schedule import Segment
from distill_core.recover.step import Goal, Part, committee
from distill_core.recover.terms import Forward, bn_statistics
from distill_core.recover.weight_perturbation import perturbed
from distill_core.seeds import generator, philox_key
from distill_core.selection.start import gaussian
from distill_core.sharding import Batch
from distill_core.storage.statistics_files import Expected
from distill_core.transforms.curricula import cosine_lr, crop_low
from distill_core.transforms.views import View, apply_view, sample_view


@dataclass(frozen=True)
class RecoveredBatch:
    """The images of one batch, and how they came about."""

    pixels: np.ndarray  # (B, 3, S, S) uint8
    losses: Mapping[str, np.ndarray]  # final value of each loss, (B,) float32
    trace: tuple[dict[str, float], ...]  # step, low, lr, each term, total
    snapshots: tuple[tuple[int, float, np.ndarray], ...]  # (step, low, (3, S, S) uint8)


class BatchRecovery:
    """One batch on its way from start to pixels.

    Args:
        batch: which images, in order.
        config: steps, terms, views and update.
        teachers: frozen, on `device`.
        seed: the run's seed.
        device: where to compute.
        expected: what terms hold the batch against, by teacher; empty if none asks.
        student: whom `adversarial` asks; without one there is no such term.
    """

    def __init__(
        self,
        batch: Batch,
        config: RecoverConfig,
        teachers: Sequence[FrozenTeacher],
        seed: int,
        device: torch.device,
        expected: Sequence[Expected],
        student: FrozenTeacher | None = None,
    ) -> None:
        self.batch, self.config, self.seed, self.device = batch, config, seed, device
        self.side = teachers[0].spec.side
        self.like = torch.empty(0, dtype=teachers[0].head.weight.dtype, device=device)
        self.views = philox_key(seed, "recover", "views", batch)
        real = expected or [Expected()] * len(teachers)
        self.goals = [
            goal_of(batch, teacher, config, of_teacher, like=self.like, student=student)
            for teacher, of_teacher in zip(teachers, real, strict=True)
        ]
        self.space = self.goals[0].space
        self.trace: list[tuple[int, Tensor]] = []
        self.snapshots: list[tuple[int, float, np.ndarray]] = []

    def _turns(self) -> list[Goal]:
        """Return what each step's goal is in turn; the goals of a committee are one."""
        if self.config.committee is None:
            return self.goals
        index, count = self.batch[0].ipc_index, len(self.goals)
        chosen, weights = voters(self.config.committee, count, seed=self.seed, ipc_index=index)
        return [committee([self.goals[place] for place in chosen], weights)]

    def begin(self, real: np.ndarray | None) -> Tensor:
        """Return the images before the first step, (B, 3, S, S) in normalised space."""
        if real is None:
            noise = torch.from_numpy(gaussian(self.batch, self.side, seed=self.seed))
            start = noise.to(self.device, self.like.dtype)
        else:
            start = self.space.normalise(torch.from_numpy(real).to(self.device))
        if self.config.perturb is not None and self.config.steps:
            self._perturb(start, self.config.perturb)
        return start

    def enter(self, segment: Segment, images: Tensor, start: Tensor) -> PixelParameters:
        """Return the leaves of a segment that goes on from `images`."""
        anchor = resized(start, segment.side)
        images = resized(images, segment.side)
        if segment.first and self.config.residual:
            images = torch.lerp(images, anchor, self.config.residual)
        return PixelParameters(images, anchor, self.batch, self._turns(), self.config)

    def part(self, leaves: PixelParameters, step: int, side: int) -> Part:
        """Return what takes part in a step."""
        count = max(goal.teacher.num_convolutions for goal in self.goals)
        return leaves.part(
            step,
            view=self._view(step, side),
            lr=self._lr(step),
            skipped=skipped_convolutions(count, self.config, self.batch, seed=self.seed, step=step),
        )

    def note(self, step: int, values: Tensor) -> None:
        """Keep the losses of a step, (terms + 1,), on the device."""
        self.trace.append((step, values))
        self._check(f"loss at step {step}", values)

    def leave(self, images: Tensor) -> Tensor:
        """Return the last iterate at the resolution of the data."""
        images = resized(images, self.side)
        self._check("image after the last step", images)  # the last loss came before it
        self.show(images, self.config.steps)
        return images

    def show(self, images: Tensor, step: int) -> None:
        """Keep the first image of (B, 3, S', S') for the evolution strip."""
        first = self.space.quantise(resized(images.detach()[:1], self.side))[0].cpu().numpy()
        self.snapshots.append((step, self._low(min(step, self.config.steps)), first))

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
        crop, shared = self.config.crop, self.config.shared_view
        view = sample_view(
            generator(self.views, step),
            count=1 if shared else len(self.batch),
            side=side,
            scale=None if crop is None else (self._low(step), crop.high),
            flip=self.config.flip,
            roll=self.config.roll,
        )
        return view.repeated(len(self.batch)) if shared else view

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
