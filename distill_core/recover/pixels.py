"""The pixels of one batch as leaves of an optimiser, group by group.

Images of a late group take no part before it joins: they are not looked at, so they do not count
in the batch's statistics, and no step is taken on them.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill_core.config.recovery import RecoverConfig
from distill_core.recover.schedule import joins_at, late_groups
from distill_core.recover.statistics_average import Memory
from distill_core.recover.step import Goal, Part
from distill_core.recover.update import pixel_adam
from distill_core.sharding import Batch
from distill_core.training.optim import set_lr
from distill_core.transforms.views import View, sampling_grid


class PixelParameters:
    """The images of a batch during one segment.

    Args:
        images: (B, 3, S, S) normalised, where the segment starts.
        anchor: (B, 3, S, S), the start of the recovery at this resolution.
        batch: which images.
        goals: what they are to become, by teacher; they take turns.
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
        self._goals = [[goal.of(part) for part in rows] for goal in goals]
        self._anchor = anchor[self._order] if "start_distance" in goals[0].objective else None
        self._decay = None if config.flatness is None else config.flatness.decay
        self._average = ordered.clone() if self._decay is not None else None
        self._memory = Memory(config.statistics_decay) if config.statistics_decay else None

    def part(self, step: int, *, view: View, lr: float, skipped: frozenset[int]) -> Part:
        """Return the images whose turn it is, ready for a step."""
        active = sum(join <= step for join in self._joins)
        count = int(self._ends[active - 1])
        set_lr(self._adam, lr)
        goal = self._goals[step % len(self._goals)][active - 1]
        shown = self._order[:count].repeat(goal.tiles**2)  # its tiles stand side by side
        side = self._leaves[0].shape[-1]
        return Part(
            self._leaves[:active],
            goal,
            self._adam,
            sampling_grid(view.rows(shown), out=side, like=self._leaves[0]),
            skipped,
            start=None if self._anchor is None else self._anchor[:count],
            smoothed=None if self._average is None else self._average[:count],
            memory=self._memory,
        )

    def follow(self) -> None:
        """Let the running average follow the images; after every step."""
        if self._average is not None and self._decay is not None:
            now = torch.cat([leaf.detach() for leaf in self._leaves])
            self._average.lerp_(now, 1 - self._decay)

    def images(self) -> Tensor:
        """Return the images in the batch's order, detached."""
        back = np.argsort(self._order)
        return torch.cat([leaf.detach() for leaf in self._leaves])[back]
