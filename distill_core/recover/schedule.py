"""Which part of a recovery a step belongs to, and which images take part in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill_core.config.recovery import RecoverConfig
from distill_core.sharding import Batch


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
    made, first = [], 0
    for part in config.segments:
        made.append(Segment(first, first + part.steps, part.side or side))
        first += part.steps
    return tuple(made)


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
