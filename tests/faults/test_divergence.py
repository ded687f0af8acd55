"""A shard whose loss or image stops being finite at any step is never committed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from distill_core.errors import ShardsFailed
from distill_core.recover import cudagraph
from distill_core.recover.step import Part
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.pipeline import execute, same_teacher, tiny_run

STEPS = 102  # every second one is traced and checked
OVERRIDES = ("ipc=1", f"recover.steps={STEPS}", "posttrain.sets=[distilled]")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run with a teacher."""
    run = tiny_run(tmp_path_factory.mktemp("taught"), *OVERRIDES)
    execute(run, "ingest", "squeeze")
    return run


@pytest.mark.parametrize(
    ("step", "what"),
    [(0, "loss at step 0"), (7, "loss at step 8"), (STEPS - 1, "image after the last step")],
)
def test_a_diverged_shard_leaves_no_file(
    taught: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, what: str
) -> None:
    taken: list[Tensor] = []

    def poisoned(parts: Sequence[Part]) -> Tensor:
        taken.append(take_step(parts))
        if len(taken) == step + 1:
            parts[0].images[0].data[0, 0, 0, 0] = float("nan")  # one pixel is enough
            return taken[-1] if step == STEPS - 1 else taken[-1] * float("nan")
        return taken[-1]

    take_step = cudagraph.recover_step
    monkeypatch.setattr(cudagraph, "recover_step", poisoned)
    run = same_teacher(taught, tmp_path, *OVERRIDES)
    with pytest.raises(ShardsFailed, match="1 of the recover shards failed"):
        execute(run, "recover")

    (failure,) = stage_status(run, StageId("recover")).failed.values()
    assert (failure["type"], failure["attempts"]) == ("DivergedError", 1)
    assert f"the {what} of the batch" in failure["error"]
    assert not ShardStore(run.store, "recover").done()
    assert not run.store.names("recover/data")
