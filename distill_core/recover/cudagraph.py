"""Steps that are recorded once and replayed, so that a GPU does not wait for kernel launches.

A step reads everything that changes from one to the next (its sampling grid, the learning rate)
from tensors, and all else stays where it is in memory, so the recording of one step can be replayed
for every later step of its kind.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from distill_core.recover.step import Part, recover_step
from distill_core.recover.terms import NEEDS_SYNC
from distill_core.transforms.views import SamplingGrid

Step = Callable[[Sequence[Part]], Tensor]
Replay = Callable[[], Tensor]

WARM_UP = 3  # steps of a kind before it is recorded; libraries choose kernels and take memory
MAX_RECORDINGS = 32  # of a segment; teachers in turn times late groups are far fewer
logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Makes recordings of steps."""

    def rehearse(self, step: Replay) -> Tensor:
        """Take a step where it will be recorded."""

    def record(self, step: Replay) -> Replay:
        """Return the replay of a step on fixed tensors; the step itself is not taken."""


def steps_on(device: torch.device) -> Step:
    """Return the function that takes the steps of a segment: replayed on a GPU, else one by one."""
    return RecordedSteps(CudaRecorder(device)) if device.type == "cuda" else recover_step


class RecordedSteps:
    """Takes steps as `recover_step` does, from recordings as soon as there are any.

    If a recording fails (an operation that cannot be recorded, no memory for it), the reason is
    logged once, and from then on every step is taken one by one, with the same result. So are steps
    with terms that wait for the device, and steps that leave layers out at random.

    Args:
        recorder: makes recordings.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder: Recorder | None = recorder
        self._taken: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, parts: Sequence[Part]) -> Tensor:
        """Take one step; arguments and result as those of `recover_step`."""
        parts = [replace(part, grid=part.grid.whole()) for part in parts]
        if self._recorder is None or any(map(_cannot_be_recorded, parts)):
            return recover_step(parts)
        kind = _kind(parts)
        self._taken[kind] += 1
        if self._taken[kind] <= WARM_UP:
            return self._recorder.rehearse(lambda: recover_step(parts))
        if kind not in self._recordings and not self._record(kind, parts, self._recorder):
            return recover_step(parts)
        return self._recordings[kind].replay(parts)

    def _record(self, kind: Hashable, parts: Sequence[Part], recorder: Recorder) -> bool:
        """Make a recording; return whether it succeeded.

        The memory of a failed one is free on return, so that the step has room.
        """
        if len(self._recordings) == MAX_RECORDINGS:
            return False
        try:
            self._recordings[kind] = _Recording(parts, recorder)
        except RuntimeError as error:  # all of CUDA's errors, out of memory included
            _warn_once(str(error))
        else:
            return True
        self._recorder = None
        self._recordings.clear()
        return False


def _cannot_be_recorded(part: Part) -> bool:
    """Return whether the next step differs from this one, or waits for the device."""
    return bool(part.skipped or part.goal.objective.keys() & NEEDS_SYNC)


@cache
def _warn_once(reason: str) -> None:
    logger.warning("recover: steps are not recorded (%s).", reason)


class CudaRecorder:
    """Makes CUDA graphs of one GPU that share their memory: one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), _stream_of(device)

    def rehearse(self, step: Replay) -> Tensor:
        """Take a step on the recording stream: gradients may keep the stream they were made on."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            values = step()
        outside.wait_stream(self._stream)
        values.record_stream(outside)
        return values

    def record(self, step: Replay) -> Replay:
        """Return the replay of a step; the step itself is not taken."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            values = step()

        def replay() -> Tensor:
            graph.replay()
            return values.clone()  # the next replay writes to the same memory

        return replay


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """Return the recording stream of a GPU, one for all: libraries keep memory for every stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Recording:
    """One kind of step, with sampling grids of its own."""

    def __init__(self, parts: Sequence[Part], recorder: Recorder) -> None:
        grids = [SamplingGrid(part.grid.first.clone(), part.grid.share.clone()) for part in parts]
        fixed = [replace(part, grid=grid) for part, grid in zip(parts, grids, strict=True)]
        self._grids = grids
        self._replay = recorder.record(lambda: recover_step(fixed))

    def replay(self, parts: Sequence[Part]) -> Tensor:
        """Take a step with the sampling grids of `parts`."""
        for grid, part in zip(self._grids, parts, strict=True):
            grid.first.copy_(part.grid.first, non_blocking=True)
            grid.share.copy_(part.grid.share, non_blocking=True)
        return self._replay()


def _kind(parts: Sequence[Part]) -> Hashable:
    """Return a key that is equal for steps that differ only in sampling grid and learning rate."""
    return tuple(
        (id(part.goal), id(part.optimizer), len(part.images), part.grid.first.shape)
        for part in parts
    )
