"""One batch on its way through recover: its goals, its draws, its trace and its snapshots.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from distill_core.config.recovery_settings import PerturbConfig
from distill_core.config.terms import MEASURED
from distill_core.errors import ConfigError, DivergedError
from distill_core.models.ensemble import voters
from distill_core.recover.goals import Goal, goal_of, joint_goal, skipped_convolutions
from distill_core.recover.pixels import PixelParameters, Segment
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.step import Part
from distill_core.recover.terms import Forward, bn_statistics
from distill_core.recover.weight_perturbation import perturbed
from distill_core.seeds import generator, philox_key
from distill_core.selection.starts import gaussian
from distill_core.sharding import Batch
from distill_core.storage.statistics_files import Expected
from distill_core.transforms.curricula import cosine_lr, crop_low
from distill_core.transforms.upload import upload
from distill_core.transforms.views import View, apply_view, sample_view


@dataclass(frozen=True, eq=False)
class RecoveredBatch:
    """The images of one batch, with their losses and their history."""

    images: Batch
    pixels: np.ndarray  # (B, 3, S, S) uint8
    losses: Mapping[str, np.ndarray]  # final value of each loss, (B,) float32
    trace: tuple[dict[str, float], ...]  # step, low, lr, each term, total
    snapshots: tuple[tuple[int, float, np.ndarray], ...]  # (step, low, (3, S, S) uint8)


class BatchRecovery:
    """One batch between its start and its final pixels.

    Args:
        batch: which images, in order.
        setup: config, teachers and seed of the recovery.
        real: statistics of real images that terms compare with, by teacher; empty if none does.

    Raises:
        ConfigError: a term compares with real images, and there are no statistics of them.
    """

    def __init__(self, batch: Batch, setup: RecoverySetup, real: Sequence[Expected] = ()) -> None:
        self.batch, self.setup, self.config = batch, setup, setup.config
        self.like, self.side = setup.like, setup.side
        if self.config.needs_class_statistics and not real:
            raise ConfigError(
                f"recover.terms: {min(self.config.active_terms & MEASURED.keys())} compares with "
                "real images, but no statistics of them were given. Measure them first."
            )
        self._views = philox_key(setup.seed, "recover", "views", batch)
        self.goals = [
            goal_of(batch, place, setup, expected)
            for place, expected in zip(
                range(len(setup.teachers)), real or [Expected()] * len(setup.teachers), strict=True
            )
        ]
        self.space = setup.space
        self._trace: list[tuple[int, Tensor]] = []
        self._snapshots: list[tuple[int, float, np.ndarray]] = []

    def start_images(self, real: np.ndarray | None) -> Tensor:
        """Return the images before the first step, (B, 3, S, S) in the space of the images.

        Where the config perturbs teachers, it is done here, once per batch.

        Args:
            real: (B, 3, S, S) uint8 images to start from; None: gaussian noise.
        """
        if real is None:
            start = self._noise()
        else:
            start = self.space.normalise(upload(real, self.like.device))
        if self.config.perturb is not None and self.config.steps:
            self._perturb_teachers(start, self.config.perturb)
        return start

    def _noise(self) -> Tensor:
        """Return gaussian noise around the mean of the first teacher's normalisation."""
        noise = upload(gaussian(self.batch, self.side, seed=self.setup.seed), self.like.device)
        noise, std = noise.to(self.like.dtype), self.config.start_std
        if self.config.space == "teacher":
            return noise if std is None else noise * std
        normal = self.setup.space_of(self.setup.teachers[0])
        return noise * (normal.std if std is None else std) + normal.mean

    def start_segment(self, segment: Segment, images: Tensor, start: Tensor) -> PixelParameters:
        """Return the parameters of a segment that goes on from `images`."""
        anchor = resized(start, segment.side)
        images = resized(images, segment.side)
        if segment.first and self.config.residual:
            images = torch.lerp(images, anchor, self.config.residual)
        return PixelParameters(images, anchor, self.batch, self._turns(), self.config)

    def part(self, parameters: PixelParameters, step: int) -> Part:
        """Return the part of the batch that takes a step."""
        count = max(goal.teacher.num_convolutions for goal in self.goals)
        seed = self.setup.seed
        return parameters.part(
            step,
            view=self._view(step, parameters.side),
            lr=self._lr(step),
            skipped=skipped_convolutions(count, self.config, self.batch, seed=seed, step=step),
        )

    def record_losses(self, step: int, values: Tensor) -> None:
        """Keep the losses of a step, (terms + 1,), on the device.

        Raises:
            DivergedError: one is not finite.
        """
        self._trace.append((step, values))
        self._check(f"loss at step {step}", values)

    def record_snapshot(self, step: int, images: Tensor) -> None:
        """Keep the first of (B, 3, S', S') images for the evolution strip."""
        first = self.space.quantise(resized(images.detach()[:1], self.side))[0].cpu().numpy()
        self._snapshots.append((step, self._low(min(step, self.config.steps)), first))

    def finish(self, images: Tensor) -> Tensor:
        """Return the last iterate at the resolution of the data.

        Raises:
            DivergedError: a pixel is not finite.
        """
        images = resized(images, self.side)
        self._check("image after the last step", images)  # the last loss came before it
        self.record_snapshot(self.config.steps, images)
        return images

    def result(self, images: Tensor) -> RecoveredBatch:
        """Round to pixels, and compute the final losses of the unaugmented images."""
        pixels = self.space.quantise(images.detach())
        names = (*self.goals[0].objective, "total")
        trace = tuple(
            {"step": step, "low": self._low(step), "lr": self._lr(step)}
            | dict(zip(names, values.tolist(), strict=True))
            for step, values in self._trace
        )
        losses = self._final_losses(pixels)
        return RecoveredBatch(
            self.batch, pixels.cpu().numpy(), losses, trace, tuple(self._snapshots)
        )

    def _turns(self) -> list[Goal]:
        """Return the goals that steps take in turn; those of a committee are one."""
        if self.config.committee is None:
            return self.goals
        chosen, weights = voters(
            self.config.committee,
            len(self.goals),
            seed=self.setup.seed,
            ipc_index=self.batch[0].ipc_index,
        )
        return [joint_goal([self.goals[place] for place in chosen], weights)]

    def _perturb_teachers(self, start: Tensor, config: PerturbConfig) -> None:
        """Move copies of the teachers uphill on the first view of the batch."""
        pixels = apply_view(start, self._view(0, self.side), out=self.side)
        self.goals = [
            replace(goal, teacher=perturbed(goal.teacher, goal.seen(pixels), goal.targets, config))
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
            generator(self._views, step),
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
        normalised = self.setup.space_of(teacher).normalise(pixels)
        output = teacher(normalised, statistics=measured)
        losses = {"cross_entropy": cross_entropy(output.logits, targets, reduction="none")}
        if measured:
            # The stored loss counts means and variances alike, so that it compares across configs.
            config = self.config.model_copy(update={"variance_factor": 1.0})
            gap = bn_statistics(Forward(normalised, targets, output, config))
            losses["bn_statistics"] = gap.expand(len(self.batch))
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
