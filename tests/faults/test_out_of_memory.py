"""A device too small for a launch: half is tried once, with the same bytes, then it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill_core.errors import ShardsFailed
from distill_core.models.teacher import FrozenTeacher
from tasks.run import Run
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.pipeline import execute, manifest, same_teacher, tiny_run

OVERRIDES = (
    "ipc=4",
    "recover.steps=3",
    "recover.composition=one_per_class",
    "recover.batch_size=10",
    "recover.ipc_range=4",
    "posttrain.sets=[distilled]",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose recover found all the room it wanted."""
    run = tiny_run(tmp_path_factory.mktemp("whole"), *OVERRIDES)
    execute(run, "ingest", "squeeze", "recover")
    return run


def leave_room_for(groups: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let larger launches fail as CUDA does; return the sizes that are tried."""
    tried: list[int] = []
    pass_through = FrozenTeacher.of_groups

    def narrow(self: FrozenTeacher, x: torch.Tensor, sizes: list[int], **how: Any) -> Any:
        tried.append(len(sizes))
        if len(sizes) > groups:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(sizes)} batches.")
        return pass_through(self, x, sizes, **how)

    monkeypatch.setattr(FrozenTeacher, "of_groups", narrow)
    return tried


def test_half_as_many_batches_in_a_launch_give_the_same_bytes(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = same_teacher(whole, tmp_path, *OVERRIDES)
    tried = leave_room_for(2, monkeypatch)
    execute(run, "recover")
    assert tried[:2] == [4, 2]
    assert max(tried[1:]) == 2
    assert manifest(run, "recover").entries == manifest(whole, "recover").entries


def test_a_shard_that_does_not_fit_in_halves_fails_and_the_error_names_the_fix(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = same_teacher(whole, tmp_path, *OVERRIDES)
    tried = leave_room_for(1, monkeypatch)
    with pytest.raises(ShardsFailed):
        execute(run, "recover")
    assert tried == [4, 2]
    (failure,) = stage_status(run, StageId("recover")).failed.values()
    assert "2 batches. A second attempt" in failure["error"]
    assert "--groups 1" in failure["error"]
