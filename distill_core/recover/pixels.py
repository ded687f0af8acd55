"""The pixels of one batch as parameters of an optimiser, segment by segment and group by group.

Images of a late group take no part before it joins: the teacher does not see them, so they do not
count in the batch's statistics, and no step is taken on them.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.recover.goals import Goal
from distill_core.recover.statistics_average import StatisticsAverage
from distill_core.recover.step import Part
from distill_core.sharding import Batch
from distill_core.training.optim import set_lr
from distill_core.transforms.views import View, sampling_grid


@dataclass(frozen=True)
class Segment:
    """Consecutive steps at one resolution, with an optimiser of their own."""

    first: int  # step
    stop: int  # the step after its last
    side: int  # in pixels


def segments_of(config: RecoverConfig, side: int) -> tuple[Segment, ...]:
    """Return the segments of a recovery, in order; `side` is that of the data, in pixels."""
    if not config.segments:
        return (Segment(0, config.steps, side),)
    segments, first = [], 0
    for part in config.segments:
        segments.append(Segment(first, first + part.steps, part.side or side))
        first += part.steps
    return tuple(segments)


def late_groups(batch: Batch, config: RecoverConfig) -> tuple[tuple[int, ...], ...]:
    """Return the positions of each group of images, the earliest first; empty groups are left out.

    An image's group follows from its place among the images per class of its shard, so that more
    images per class never change the ones there are.

    Source: arXiv:2411.19946 (DELT), EarlyLate. Differs from the paper: groups divide the images
    per class of a shard (`ipc_range`), not of the run.
    """
    width, count = config.ipc_range, config.late_groups
    groups: list[list[int]] = [[] for _ in range(count)]
    for position, image in enumerate(batch):
        groups[image.ipc_index % width * count // width].append(position)
    return tuple(tuple(group) for group in groups if group)


def joins_at(groups: Sequence[object], steps: int) -> tuple[int, ...]:
    """Return the step at which each group joins, evenly spread."""
    return tuple(number * steps // len(groups) for number in range(len(groups)))


class PixelParameters:
    """The images of a batch during one segment.

    Args:
        images: (B, 3, S, S) normalised, at the start of the segment.
        anchor: (B, 3, S, S), the start of the recovery at this resolution.
        batch: which images.
        goals: of the batch, by teacher; they take turns.
        config: update, late groups, flatness.
    """

    def __init__(
        self,
        images: Tensor,
        anchor: Tensor,
        batch: Batch,
        goals: Sequence[Goal],
        config: RecoverConfig,
    ) -> None:
        groups = late_groups(batch, config)
        self._joins = joins_at(groups, config.steps)
        self._order = np.concatenate([np.array(group) for group in groups])
        self._ends = np.cumsum([len(group) for group in groups])
        ordered = images[self._order].detach()
        self._leaves = [
            part.clone().requires_grad_()
            for part in torch.split(ordered, [len(group) for group in groups])
        ]
        self._adam = pixel_adam(self._leaves, lr=config.lr, betas=config.betas)
        rows = [torch.from_numpy(self._order[:end]) for end in self._ends]
        self._goals = [[goal.select(part) for part in rows] for goal in goals]
        self._anchor = anchor[self._order] if "start_distance" in goals[0].objective else None
        self._decay = None if config.flatness is None else config.flatness.decay
        self._smoothed = ordered.clone() if self._decay is not None else None
        decay = config.statistics_decay
        self._average = StatisticsAverage(decay) if decay else None

    @property
    def side(self) -> int:
        """Return the side of the images during the segment, in pixels."""
        return self._leaves[0].shape[-1]

    def part(self, step: int, *, view: View, lr: float, skipped: frozenset[int]) -> Part:
        """Return the images that take part in a step.

        Args:
            step: number of the step.
            view: a draw for all B images.
            lr: learning rate of the step.
            skipped: convolutions whose statistics are left out.
        """
        active = sum(join <= step for join in self._joins)
        count = int(self._ends[active - 1])
        set_lr(self._adam, lr)
        goal = self._goals[step % len(self._goals)][active - 1]
        rows = self._order[:count].repeat(goal.config.tiles**2)  # its tiles stand side by side
        return Part(
            self._leaves[:active],
            goal,
            self._adam,
            sampling_grid(view.rows(rows), out=self.side, like=self._leaves[0]),
            skipped,
            start=None if self._anchor is None else self._anchor[:count],
            smoothed=None if self._smoothed is None else self._smoothed[:count],
            average=self._average,
        )

    def update_average(self) -> None:
        """Move the running average of the images towards them; call it after every step."""
        if self._smoothed is not None and self._decay is not None:
            current = torch.cat([leaf.detach() for leaf in self._leaves])
            self._smoothed.lerp_(current, 1 - self._decay)

    def images(self) -> Tensor:
        """Return the images in the batch's order, detached."""
        back = np.argsort(self._order)
        return torch.cat([leaf.detach() for leaf in self._leaves])[back]


def pixel_adam(
    leaves: Sequence[Tensor], *, lr: float, betas: tuple[float, float]
) -> torch.optim.Adam:
    """Return Adam over some images, in one kernel for all of them.

    On a GPU its state and its learning rate are kept there, so that a recorded step finds them.

    Args:
        leaves: (B, 3, S, S) each, on one device; one without a gradient is not updated, and its
            count of steps does not grow.
        lr: at the first step.
        betas: decay of the two moments.
    """
    device = leaves[0].device
    capturable = device.type == "cuda"
    rate = torch.tensor(lr, device=device) if capturable else lr
    adam = torch.optim.Adam(leaves, lr=rate, betas=betas, fused=True, capturable=capturable)
    # The first steps, and all steps where recording fails, are taken outside a graph on purpose.
    adam._warned_capturable_if_run_uncaptured = True
    return adam
