"""One gradient step of recover; everything it reads is an argument.

Nothing in it waits for the device, except the terms in `NEEDS_SYNC`.

Axes: B images, 3 channels, S x S pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_core.config.terms import NEEDS_BATCH_NORMS
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.recover.goals import Goal
from distill_core.recover.statistics_average import StatisticsAverage
from distill_core.recover.terms import Forward
from distill_core.selection.mosaic import tiles_of
from distill_core.transforms.views import SamplingGrid, resample


@dataclass(frozen=True)
class Part:
    """One batch of a step: the pixels that are optimised, their goal, and the view."""

    images: Sequence[Tensor]  # leaves that together are the batch, (B, 3, S, S)
    goal: Goal
    optimizer: torch.optim.Optimizer  # of the leaves
    grid: SamplingGrid  # of the B images, or of all their tiles
    skipped: frozenset[int] = frozenset()  # a draw of convolutions whose statistics are left out
    start: Tensor | None = None  # (B, 3, S, S): before the first step, for `start_distance`
    smoothed: Tensor | None = None  # (B, 3, S, S): the images' running average, for `flatness`
    average: StatisticsAverage | None = None  # of the batch over earlier steps; updated by the step


def recover_step(parts: Sequence[Part]) -> Tensor:
    """Take one gradient step on every part, in place, and project onto the valid box.

    The parts go through the teacher together, but each has its own loss and statistics: the result
    of one does not depend on the others.

    Args:
        parts: G batches of any sizes, under the same teachers and objective.

    Returns:
        (G, terms + 1): the terms' values in the objective's order, summed over a committee by
        weight; then the terms' weighted sum; detached, on device.
    """
    for part in parts:
        part.optimizer.zero_grad(set_to_none=True)
    views = [_view(_joined(part.images), part) for part in parts]
    members = range(len(parts[0].goal.members))
    forwards = [_forward(parts, views, number) for number in members]
    values = torch.stack([_losses(p.goal, of) for p, *of in zip(parts, *forwards, strict=True)])
    values[:, -1].sum().backward()  # type: ignore[no-untyped-call]
    for part in parts:
        part.optimizer.step()
        _project(part)
    return values.detach()


def _losses(goal: Goal, forwards: Sequence[Forward]) -> Tensor:
    """Return (terms + 1,): each term, then their weighted sum; `forwards` by member of the goal."""
    objective = goal.objective.values()
    values = [[term(forward) for forward in forwards] for _, term in objective]
    losses = [_over_members(goal, of_term) for of_term in values]
    weighted = [
        _weighted(goal, name, loss, of_term)
        for name, loss, of_term in zip(goal.objective, losses, values, strict=True)
    ]
    return torch.stack([*losses, torch.stack(weighted).sum()])


def _weighted(goal: Goal, term: str, loss: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Return a term times its weight; where the members' weights differ, each value times its own.

    Args:
        goal: of the step.
        term: its name.
        loss: its value over all members.
        values: its values by member.
    """
    weights = [member.objective[term][0] for member in goal.members]
    if len(set(weights)) == 1:
        return weights[0] * loss
    return _over_members(goal, [w * x for w, x in zip(weights, values, strict=True)])


def _over_members(goal: Goal, values: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum of a term's values under the members of a goal."""
    if len(values) == 1:
        return values[0]
    pairs = zip(goal.members, values, strict=True)
    return torch.stack([member.weight * value for member, value in pairs]).sum()


def _forward(parts: Sequence[Part], views: Sequence[Tensor], number: int) -> tuple[Forward, ...]:
    """Return the input of the terms for each part, under one member of its goal."""
    goals = [part.goal.members[number] for part in parts]
    tiles, student = goals[0].config.tiles ** 2, goals[0].student
    nothing = [None] * len(parts)
    shown = [goal.seen_by_student(view) for goal, view in zip(goals, views, strict=True)]
    student_logits = nothing if student is None else _logits_of(student, shown)
    views = [goal.seen(view) for goal, view in zip(goals, views, strict=True)]
    outputs = _teacher_outputs(parts, goals, views)
    with torch.no_grad():
        pairs = list(zip(goals, parts, strict=True))
        starts = [None if p.start is None else goal.seen(_view(p.start, p)) for goal, p in pairs]
        averages = [
            None if p.smoothed is None else goal.seen(_view(p.smoothed, p)) for goal, p in pairs
        ]
        smoothed = _logits_of(goals[0].teacher, averages)
    return tuple(
        Forward(
            views[place],
            goal.targets if tiles == 1 else goal.targets.repeat_interleave(tiles),
            outputs[place],
            goal.config,
            goal.moments,
            {term: targets.flatten(0, 1) for term, targets in goal.features.items()},
            start=starts[place],
            smoothed_logits=smoothed[place],
            student_logits=student_logits[place],
        )
        for place, goal in enumerate(goals)
    )


def _teacher_outputs(
    parts: Sequence[Part], goals: Sequence[Goal], views: Sequence[Tensor]
) -> list[TeacherOutput]:
    """Return the teacher's output on each part, from one pass through the network."""
    first = goals[0]
    outputs = first.teacher.of_groups(
        _joined(views),
        [len(view) for view in views],
        statistics=bool(first.objective.keys() & NEEDS_BATCH_NORMS),
        probe=first.probe,
        skipped=[part.skipped for part in parts],
        compiled=first.config.compile,
    )
    return [
        output if part.average is None else part.average.update(output, goal.teacher.digest)
        for output, part, goal in zip(outputs, parts, goals, strict=True)
    ]


def _view(images: Tensor, part: Part) -> Tensor:
    """Return a view of each image, or of each of its tiles, in the space of the images."""
    return resample(tiles_of(images, part.goal.config.tiles), part.grid)


def _logits_of(network: FrozenTeacher, views: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Return a network's logits of each group of images, (B, C); None where there are none."""
    given = [view for view in views if view is not None]
    if not given:
        return views
    outputs = network.of_groups(_joined(given), [len(view) for view in given])
    return [output.logits for output in outputs]


def _joined(images: Sequence[Tensor]) -> Tensor:
    return images[0] if len(images) == 1 else torch.cat(list(images))


@torch.no_grad()
def _project(part: Part) -> None:
    for leaf in part.images:
        torch.clamp(leaf, part.goal.space.low, part.goal.space.high, out=leaf)
