"""One gradient step of recover; everything it reads is an argument, nothing in it waits.

Axes: B images, 3 channels, S x S pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill_core.models.teacher import FrozenTeacher
from distill_core.pixel_space import PixelSpace
from distill_core.recover.terms import NEEDS_STATISTICS, Forward, Objective
from distill_core.views import View, apply_view


@dataclass(frozen=True)
class Goal:
    """What the images of a batch are to become; nothing here changes with the step."""

    targets: Tensor  # (B,) int64
    teacher: FrozenTeacher
    objective: Objective
    space: PixelSpace
    first_layer_factor: float = 1.0
    variance_factor: float = 1.0
    temperature: float = 1.0  # of flatness
    class_moments: tuple[tuple[Tensor, Tensor], ...] = ()  # (mean, var), each (ch,), by layer

    def of(self, rows: Tensor) -> Goal:
        """Return the goal of some of the images."""
        return replace(self, targets=self.targets[rows])


def recover_step(
    images: Sequence[Tensor],
    goal: Goal,
    *,
    optimizer: torch.optim.Optimizer,
    view: View,
    start: Tensor | None = None,
    smoothed: Tensor | None = None,
) -> Tensor:
    """Take one gradient step on `images`, in place, and project onto the valid box.

    Args:
        images: leaves that together are the batch, (B, 3, S, S) normalised; usually one.
        goal: teacher, terms and weights.
        optimizer: of the leaves.
        view: a draw for the B images.
        start: (B, 3, S, S), what the images were before the first step, for `start_distance`.
        smoothed: (B, 3, S, S), the images' running average, for `flatness`.

    Returns:
        The terms' values in the objective's order, then their weighted sum; detached, on device.
    """
    optimizer.zero_grad(set_to_none=True)
    batch = images[0] if len(images) == 1 else torch.cat(list(images))
    forward, objective = _look(batch, goal, view, start, smoothed), goal.objective.values()
    losses = [term(forward) for _, term in objective]
    total = torch.stack([w * x for (w, _), x in zip(objective, losses, strict=True)]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        for leaf in images:
            torch.clamp(leaf, goal.space.low, goal.space.high, out=leaf)
    return torch.stack([*losses, total]).detach()


def _look(
    batch: Tensor, goal: Goal, view: View, start: Tensor | None, smoothed: Tensor | None
) -> Forward:
    """Look at the batch through a view, and at what it is compared with through the same one."""
    out = batch.shape[-1]
    pixels = apply_view(batch, view, out=out)
    said = goal.teacher(pixels, statistics=bool(goal.objective.keys() & NEEDS_STATISTICS))
    with torch.no_grad():
        before = None if start is None else apply_view(start, view, out=out)
        average = None if smoothed is None else goal.teacher(apply_view(smoothed, view, out=out))
    return Forward(
        pixels,
        goal.targets,
        said,
        goal.first_layer_factor,
        goal.class_moments,
        variance_factor=goal.variance_factor,
        start=before,
        smoothed_logits=None if average is None else average.logits,
        temperature=goal.temperature,
    )
