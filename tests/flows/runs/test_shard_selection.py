"""The shards that a resume may run: by number, those that failed, and both."""

from __future__ import annotations

import pytest

from distill_core.errors import ConfigError
from flows.runs import shard_selection
from flows.status.status import RunStatus
from tasks.runs.stage_status import StageStatus
from tasks.stages.names import StageId


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", [3]), ("3,17-20", [3, 17, 18, 19, 20]), ("2-2, 1", [1, 2])]
)
def test_shard_numbers_are_read(text: str, numbers: list[int]) -> None:
    assert shard_selection.parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "1;2", "1,,2"])
def test_invalid_shard_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--shards"):
        shard_selection.parse_numbers(text)


def test_failed_only_narrows_the_first_incomplete_stage() -> None:
    done = StageStatus(StageId("squeeze"), total=1, done=1, complete=True)
    failed = StageStatus(StageId("recover"), total=3, done=1, failed={"b": {}, "a": {}})
    assert shard_selection.failed_only_of(RunStatus("r", "p", (done, failed))) == {
        "recover": ["a", "b"]
    }
    untouched = StageStatus(StageId("recover"), total=3, done=1)
    with pytest.raises(ConfigError, match="no recover shard has failed"):
        shard_selection.failed_only_of(RunStatus("r", "p", (done, untouched)))
    with pytest.raises(ConfigError, match="complete"):
        shard_selection.failed_only_of(RunStatus("r", "p", (done,)))


def test_two_shard_selections_are_intersected() -> None:
    one, other = {"recover": ["a", "b"]}, {"recover": ["b", "c"], "relabel": ["d"]}
    assert shard_selection.narrowed(one, other) == {"recover": ["b"], "relabel": ["d"]}
