"""The cost of a step of recover as counts: operations, FLOPs, bytes, and synchronisations.

Counts need no timing and are equal on every machine. They grow if a step becomes more expensive.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_recover import Contest
from benchmarks.dispatched import Dispatched
from distill_core.config.fields import Precision

WIDTH, SIDE, BATCH = 16, 32, 8


def steps(precision: Precision) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a step of the published loop and one of ours."""
    contest = Contest(WIDTH, SIDE, BATCH)
    return contest.theirs().step, contest.ours(precision).step


def counted(precision: Precision = "float32") -> tuple[Dispatched, Dispatched]:
    """Return what the published loop and ours dispatch in one step, the third of each."""
    counts = []
    for step in steps(precision):
        step()
        step()
        with Dispatched() as dispatched:
            step()
        counts.append(dispatched)
    return counts[0], counts[1]


def test_a_step_neither_synchronises_nor_draws_random_numbers() -> None:
    theirs, ours = counted()
    waits = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal")
    assert not [name for name in ours.calls if name in waits or "rand" in name]
    assert theirs.calls["_local_scalar_dense"]  # the count sees such waits


def test_a_step_has_fewer_operations_and_moves_fewer_bytes_than_the_published_loop() -> None:
    theirs, ours = counted()
    assert ours.calls.total() < 0.7 * theirs.calls.total()
    assert ours.bytes < 0.6 * theirs.bytes
    half = counted("bfloat16")[1]
    assert half.calls.total() < 0.92 * theirs.calls.total()
    assert half.bytes < 0.36 * theirs.bytes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_gradient_of_a_teacher_weight_is_computed(precision: Precision) -> None:
    """With weights left trainable a step costs three forward passes, without them two."""
    flops = []
    for step in steps(precision):
        step()
        with FlopCounterMode(display=False) as counter:
            step()
        counts = counter.get_flop_counts()["Global"]
        flops.append(sum(n for op, n in counts.items() if "conv" in str(op)))
        forward = counts[torch.ops.aten.convolution]
        assert counts[torch.ops.aten.convolution_backward] <= forward
    assert flops[0] == flops[1]


def test_a_step_keeps_less_for_its_gradient_than_the_published_loop() -> None:
    kept = []
    for step in steps("float32"):
        step()
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor, found: dict[int, int] = storages) -> torch.Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            step()
        kept.append(sum(storages.values()))
    assert kept[1] < 0.8 * kept[0]
