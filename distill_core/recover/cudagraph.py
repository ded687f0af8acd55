"""Steps that are recorded once and replayed: a GPU then waits for no launch of a kernel.

A step reads what changes from one to the next (its sampling grid, the learning rate) from tensors,
and everything else stays where it is, so the recording of one step is every later step of its kind.
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
MOST = 32  # recordings of a segment; teachers in turn times late groups are far fewer
logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Makes recordings of steps."""

    def rehearse(self, step: Replay) -> Tensor:
        """Take a step where it will be recorded."""

    def record(self, step: Replay) -> Replay:
        """Return the replay of a step on fixed tensors; the step itself is not taken."""


def steps_on(device: torch.device) -> Step:
    """Return how steps of one segment are taken: replayed on a GPU, one by one elsewhere."""
    return RecordedSteps(CudaRecorder(device)) if device.type == "cuda" else recover_step


class RecordedSteps:
    """Takes steps as `recover_step` does, from recordings as soon as there are any.

    A recording that fails (an operation that cannot be recorded, no memory for it) is said once in
    the log; from then on every step is taken one by one, with the same result. So are steps with
    terms that wait for a number, and steps that leave layers out at random.

    Args:
        recorder: makes recordings.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder: Recorder | None = recorder
        self._taken: Counter[Hashable] = Counter()
        self._made: dict[Hashable, _Recording] = {}

    def __call__(self, parts: Sequence[Part]) -> Tensor:
        """Take one step; arguments and result as those of `recover_step`."""
        parts = [replace(part, grid=part.grid.whole()) for part in parts]
        if self._recorder is None or any(map(_differs_or_waits, parts)):
            return recover_step(parts)
        kind = _kind(parts)
        self._taken[kind] += 1
        if self._taken[kind] <= WARM_UP:
            return self._recorder.rehearse(lambda: recover_step(parts))
        if kind not in self._made and not self._recorded(kind, parts, self._recorder):
            return recover_step(parts)
        return self._made[kind].replay(parts)

    def _recorded(self, kind: Hashable, parts: Sequence[Part], recorder: Recorder) -> bool:
        """Make a recording; return whether there is one now.

        What a failed one held in memory is gone on return, so that the step has room.
        """
        if len(self._made) == MOST:
            return False
        try:
            self._made[kind] = _Recording(parts, recorder)
        except RuntimeError as error:  # CUDA's errors are such, memory that runs out as well
            _say_once(str(error))
        else:
            return True
        self._recorder = None
        self._made.clear()
        return False


def _differs_or_waits(part: Part) -> bool:
    """Return whether the next step is another one, or asks the GPU for a number."""
    return bool(part.skipped or part.goal.objective.keys() & NEEDS_SYNC)


@cache
def _say_once(reason: str) -> None:
    logger.warning("recover: steps are not recorded (%s).", reason)


class CudaRecorder:
    """Makes CUDA graphs of one GPU that share their memory: one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), _stream_of(device)

    def rehearse(self, step: Replay) -> Tensor:
        """Take a step on the stream that records: gradients may remember where they were made."""
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
            return values.clone()  # the next replay writes to the same place

        return replay


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of a GPU that records: libraries keep memory for every stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Recording:
    """One kind of step, with lenses of its own."""

    def __init__(self, parts: Sequence[Part], recorder: Recorder) -> None:
        grids = [SamplingGrid(part.grid.first.clone(), part.grid.share.clone()) for part in parts]
        fixed = [replace(part, grid=grid) for part, grid in zip(parts, grids, strict=True)]
        self._grids = grids
        self._replay = recorder.record(lambda: recover_step(fixed))

    def replay(self, parts: Sequence[Part]) -> Tensor:
        """Take a step through other lenses."""
        for grid, part in zip(self._grids, parts, strict=True):
            grid.first.copy_(part.grid.first, non_blocking=True)
            grid.share.copy_(part.grid.share, non_blocking=True)
        return self._replay()


def _kind(parts: Sequence[Part]) -> Hashable:
    """Return what steps have in common that differ in sampling grid and learning rate alone."""
    return tuple(
        (id(part.goal), id(part.optimizer), len(part.images), part.grid.first.shape)
        for part in parts
    )
