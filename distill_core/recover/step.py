"""One gradient step of recover; everything it reads is an argument.

Nothing in it waits for the device, but for the terms in `NEEDS_SYNC`.

Axes: B images, 3 channels, S x S pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from distill_core.models.convolutions import Probe
from distill_core.models.teacher import FrozenTeacher
from distill_core.recover.statistics_average import Memory
from distill_core.recover.terms import NEEDS_BATCH_NORMS, Forward, Layers, Objective
from distill_core.selection.tiles import tiles_of
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.views import SamplingGrid, resample


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
    first_convolution_factor: float = 1.0
    moments: Mapping[str, Layers] = field(default_factory=dict)  # of real images, by term
    features: Mapping[str, Tensor] = field(default_factory=dict)  # (B, T, D), by term
    probe: Probe | None = None  # what is measured at the convolutions
    compiled: bool = False  # whether passes through the teacher are
    tiles: int = 1  # per side, T = tiles^2 of an image; the teacher looks at each by itself
    student: FrozenTeacher | None = None  # whom `adversarial` asks
    weight: float = 1.0
    others: tuple[Goal, ...] = ()  # of the same step, with other teachers

    @property
    def members(self) -> tuple[Goal, ...]:
        """Return the goal itself and the others of the same step."""
        return (self, *self.others)

    def of(self, rows: Tensor) -> Goal:
        """Return the goal of some of the images."""
        others = tuple(other.of(rows) for other in self.others)
        features = {term: wanted[rows] for term, wanted in self.features.items()}
        return replace(self, targets=self.targets[rows], features=features, others=others)


def committee(goals: Sequence[Goal], weights: Sequence[float]) -> Goal:
    """Return the weighted sum of goals as one: their teachers all look at every step.

    Source: arXiv:2501.07575 (CV-DD), committee voting.
    """
    first, *others = [replace(g, weight=w) for g, w in zip(goals, weights, strict=True)]
    return replace(first, others=tuple(others))


@dataclass(frozen=True)
class Part:
    """One batch as it goes into a step: what is optimised, towards what, seen through what."""

    images: Sequence[Tensor]  # leaves that together are the batch, (B, 3, S, S) normalised
    goal: Goal
    optimizer: torch.optim.Optimizer  # of the leaves
    grid: SamplingGrid  # of the B images, or of all their tiles
    skipped: frozenset[int] = frozenset()  # a draw of convolutions whose statistics are left out
    start: Tensor | None = None  # (B, 3, S, S): before the first step, for `start_distance`
    smoothed: Tensor | None = None  # (B, 3, S, S): the images' running average, for `flatness`
    memory: Memory | None = None  # of the batch's statistics in earlier steps; it is added to


def recover_step(parts: Sequence[Part]) -> Tensor:
    """Take one gradient step on every part, in place, and project onto the valid box.

    The parts go through the teacher together, but each has its own loss and statistics: what
    becomes of one does not depend on the others.

    Args:
        parts: G batches of any sizes, under the same teachers and objective.

    Returns:
        (G, terms + 1): the terms' values in the objective's order, summed over a committee by
        weight; then the terms' weighted sum; detached, on device.
    """
    for part in parts:
        part.optimizer.zero_grad(set_to_none=True)
    seen = [_seen(_joined(part.images), part) for part in parts]
    looks = [_look(parts, seen, place) for place in range(len(parts[0].goal.members))]
    values = torch.stack([_losses(p.goal, said) for p, *said in zip(parts, *looks, strict=True)])
    values[:, -1].sum().backward()  # type: ignore[no-untyped-call]
    for part in parts:
        part.optimizer.step()
        _project(part)
    return values.detach()


def _losses(goal: Goal, seen: Sequence[Forward]) -> Tensor:
    """Return (terms + 1,): each term, then their weighted sum; `seen` by member of the goal."""
    objective = goal.objective.values()
    losses = [_weighted(goal, [term(said) for said in seen]) for _, term in objective]
    weighted = [w * x for (w, _), x in zip(objective, losses, strict=True)]
    return torch.stack([*losses, torch.stack(weighted).sum()])


def _weighted(goal: Goal, values: Sequence[Tensor]) -> Tensor:
    if len(values) == 1:
        return values[0]
    pairs = zip(goal.members, values, strict=True)
    return torch.stack([member.weight * value for member, value in pairs]).sum()


def _look(parts: Sequence[Part], pixels: Sequence[Tensor], place: int) -> tuple[Forward, ...]:
    """Show a member of each goal its batch, and what that is compared with, in the same view."""
    goals = [part.goal.members[place] for part in parts]
    tiles = goals[0].tiles ** 2
    said = goals[0].teacher.of_groups(
        _joined(pixels),
        [len(one) for one in pixels],
        statistics=bool(goals[0].objective.keys() & NEEDS_BATCH_NORMS),
        probe=goals[0].probe,
        skipped=[part.skipped for part in parts],
        compiled=goals[0].compiled,
    )
    said = tuple(
        heard if part.memory is None else part.memory.of(heard, goal.teacher.digest)
        for heard, part, goal in zip(said, parts, goals, strict=True)
    )
    student, nobody = goals[0].student, [None] * len(parts)
    judged = nobody if student is None else _logits_of(student, pixels)
    with torch.no_grad():
        starts = [None if p.start is None else _seen(p.start, p) for p in parts]
        averages = [None if p.smoothed is None else _seen(p.smoothed, p) for p in parts]
        smoothed = _logits_of(goals[0].teacher, averages)
    return tuple(
        Forward(
            pixels[number],
            goal.targets if tiles == 1 else goal.targets.repeat_interleave(tiles),
            said[number],
            goal.first_layer_factor,
            goal.moments,
            {term: wanted.flatten(0, 1) for term, wanted in goal.features.items()},
            first_convolution_factor=goal.first_convolution_factor,
            variance_factor=goal.variance_factor,
            start=starts[number],
            smoothed_logits=smoothed[number],
            temperature=goal.temperature,
            student_logits=judged[number],
        )
        for number, goal in enumerate(goals)
    )


def _seen(images: Tensor, part: Part) -> Tensor:
    """Return what the teacher looks at: a view of each image, or of each of its tiles."""
    return resample(tiles_of(images, part.goal.tiles), part.grid)


def _logits_of(network: FrozenTeacher, pixels: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Return what a network says of each group of images, (B, C); None where there are none."""
    given = [one for one in pixels if one is not None]
    if not given:
        return pixels
    sizes = [len(one) for one in given]
    return [said.logits for said in network.of_groups(_joined(given), sizes)]


def _joined(images: Sequence[Tensor]) -> Tensor:
    return images[0] if len(images) == 1 else torch.cat(list(images))


@torch.no_grad()
def _project(part: Part) -> None:
    for leaf in part.images:
        torch.clamp(leaf, part.goal.space.low, part.goal.space.high, out=leaf)
