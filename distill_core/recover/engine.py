"""Recover: optimise the pixels of one batch through a frozen teacher.

One step is one function; everything it reads is an argument, and nothing in it waits for the
device. Which images share a batch is decided by the plan, because statistics pool over the batch.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill_core.config.schema import RecoverConfig
from distill_core.curricula import cosine_lr, crop_low
from distill_core.errors import ConfigError, DivergedError
from distill_core.models.teacher import FrozenTeacher
from distill_core.pixel_space import PixelSpace
from distill_core.plan import Batch
from distill_core.progress import Progress, silent
from distill_core.recover.start import gaussian
from distill_core.recover.terms import (
    NEEDS_STATISTICS,
    Forward,
    Objective,
    bn_statistics,
    build_objective,
)
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
    teacher: FrozenTeacher,
    seed: int,
    start: np.ndarray | None,
    device: str | torch.device,
    class_moments: Moments = (),
    progress: Progress = silent,
) -> RecoveredBatch:
    """Make the images of one batch; the same arguments give the same bytes on a CPU.

    Args:
        batch: which images, in order.
        config: steps, terms, views and update; 0 steps return the start unchanged.
        teacher: frozen, on `device`.
        seed: the run's seed.
        start: (B, 3, S, S) uint8 real images, or None for gaussian noise.
        device: where to compute.
        class_moments: what `class_bn_statistics` holds the batch against, by layer.
        progress: told after every traced step.

    Raises:
        ConfigError: a term needs batch norm statistics and the teacher has none.
        DivergedError: a loss stopped being finite.

    Source: arXiv:2306.13092 (SRe2L) section 3.2; arXiv:2311.18838 (CDA) section 3.
    Differs from the published code: the last iterate is kept and called so; no image priors; the
    random window of a step is drawn from counters, not from a global generator.
    """
    objective = build_objective(config.terms)
    if objective.keys() & NEEDS_STATISTICS and not teacher.num_statistics:
        raise ConfigError(
            f"recover.terms: {teacher.spec.model.title} has no batch norm layer, bn_statistics "
            "needs one. Use a teacher with batch norm, or drop the term."
        )
    run = _Loop(batch, config, teacher, objective, seed, torch.device(device), class_moments)
    images = run.start(start)
    if config.steps:
        run.optimise(images, progress)
    return run.result(images)


def recover_step(
    images: Tensor,
    targets: Tensor,
    *,
    teacher: FrozenTeacher,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    view: View,
    first_layer_factor: float,
    space: PixelSpace,
    class_moments: tuple[tuple[Tensor, Tensor], ...] = (),
) -> Tensor:
    """Take one gradient step on `images`, in place, and project onto the valid box.

    Returns:
        The terms' values in the objective's order, then their weighted sum; detached, on device.
    """
    optimizer.zero_grad(set_to_none=True)
    pixels = apply_view(images, view, out=images.shape[-1])
    output = teacher(pixels, statistics=bool(objective.keys() & NEEDS_STATISTICS))
    forward = Forward(pixels, targets, output, first_layer_factor, class_moments)
    losses = [term(forward) for _, term in objective.values()]
    total = torch.stack([w * x for (w, _), x in zip(objective.values(), losses, strict=True)]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        torch.clamp(images, space.low, space.high, out=images)
    return torch.stack([*losses, total]).detach()


class _Loop:
    """The loop over steps of one batch: schedules, draws, traces."""

    def __init__(
        self,
        batch: Batch,
        config: RecoverConfig,
        teacher: FrozenTeacher,
        objective: Objective,
        seed: int,
        device: torch.device,
        class_moments: Moments,
    ) -> None:
        self.batch, self.config, self.teacher = batch, config, teacher
        self.objective, self.seed, self.device = objective, seed, device
        self.dtype = teacher.head.weight.dtype
        self.side = teacher.spec.side
        self.targets = torch.tensor([image.label for image in batch], device=device)
        like = torch.empty(0, dtype=self.dtype, device=device)
        self.space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, like)
        self.views = philox_key(seed, "recover", "views", batch)
        self.class_moments = tuple(
            (like.new_tensor(mean), like.new_tensor(var)) for mean, var in class_moments
        )
        self.trace: list[tuple[int, Tensor]] = []
        self.snapshots: list[tuple[int, float, np.ndarray]] = []

    def start(self, real: np.ndarray | None) -> Tensor:
        """Return the leaf (B, 3, S, S) in normalised space."""
        if real is not None:
            images = self.space.normalise(torch.from_numpy(real).to(self.device))
        else:
            noise = gaussian(self.batch, self.side, seed=self.seed)
            images = torch.from_numpy(noise).to(self.device, self.dtype)
        return images.requires_grad_(True)

    def low(self, step: int) -> float:
        """Return the lower bound of the crop area; 1 without a crop."""
        crop = self.config.crop
        return 1.0 if crop is None else crop_low(crop, step, self.config.steps)

    def view(self, step: int) -> View:
        """Draw the view of a step."""
        crop = self.config.crop
        return sample_view(
            generator(self.views, step),
            count=len(self.batch),
            side=self.side,
            scale=None if crop is None else (self.low(step), crop.high),
            flip=self.config.flip,
            roll=self.config.roll,
            shared=self.config.shared_view,
        )

    def optimise(self, images: Tensor, progress: Progress) -> None:
        """Take every step; the last iterate stays in `images`."""
        steps, every = self.config.steps, max(1, self.config.steps // TRACE_POINTS)
        shown = {round(share * steps) for share in SNAPSHOTS}
        optimizer = torch.optim.Adam([images], lr=self.config.lr, betas=self.config.betas)
        for step in range(steps):
            if step in shown:
                self._snapshot(images, step)
            for group in optimizer.param_groups:
                group["lr"] = cosine_lr(self.config.lr, step, steps)
            values = recover_step(
                images,
                self.targets,
                teacher=self.teacher,
                optimizer=optimizer,
                objective=self.objective,
                view=self.view(step),
                first_layer_factor=self.config.first_layer_factor,
                space=self.space,
                class_moments=self.class_moments,
            )
            if step % every == 0 or step == steps - 1:
                self.trace.append((step, values))
                self._check(step, values)
                progress(step + 1, steps)
        self._snapshot(images, steps)

    def result(self, images: Tensor) -> RecoveredBatch:
        """Round to pixels, and judge the unaugmented images once."""
        pixels = self.space.quantise(images.detach())
        names = (*self.objective, "total")
        trace = tuple(
            {"step": step, "low": self.low(step), "lr": self._lr(step)}
            | dict(zip(names, values.tolist(), strict=True))
            for step, values in self.trace
        )
        losses = self._final_losses(pixels)
        return RecoveredBatch(pixels.cpu().numpy(), losses, trace, tuple(self.snapshots))

    @torch.no_grad()
    def _final_losses(self, pixels: Tensor) -> dict[str, np.ndarray]:
        """Return each image's cross-entropy, and the batch's statistics gap where there is one."""
        measured = bool(self.teacher.num_statistics)
        output = self.teacher(self.space.normalise(pixels), statistics=measured)
        losses = {"cross_entropy": cross_entropy(output.logits, self.targets, reduction="none")}
        if measured:
            forward = Forward(pixels, self.targets, output, self.config.first_layer_factor)
            losses["bn_statistics"] = bn_statistics(forward).expand(len(self.batch))
        return {name: values.float().cpu().numpy() for name, values in losses.items()}

    def _lr(self, step: int) -> float:
        return cosine_lr(self.config.lr, step, self.config.steps)

    def _snapshot(self, images: Tensor, step: int) -> None:
        first = self.space.quantise(images.detach()[:1])[0].cpu().numpy()
        self.snapshots.append((step, self.low(min(step, self.config.steps)), first))

    def _check(self, step: int, values: Tensor) -> None:
        if not bool(values.isfinite().all()):
            first, last = self.batch[0], self.batch[-1]
            raise DivergedError(
                f"recover: loss {values.tolist()} at step {step} of the batch {first.wnid}/"
                f"{first.ipc_index} .. {last.wnid}/{last.ipc_index} is not finite. "
                "Lower recover.lr; the same seed will do it again."
            )
