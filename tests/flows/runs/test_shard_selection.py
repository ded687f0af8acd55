"""The shards that a resume may run: by number, those that failed, and both."""

from __future__ import annotations

import tracemalloc

import pytest

from distill_core.errors import ConfigError
from flows.runs import shard_selection
from flows.status.status import RunStatus
from tasks.runs.stage_status import StageStatus
from tasks.stages.names import StageId


@pytest.mark.parametrize(
    ("text", "ranges"),
    [("3", [(3, 3)]), ("3,17-20", [(3, 3), (17, 20)]), ("2-2, 1", [(2, 2), (1, 1)])],
)
def test_shard_numbers_are_read(text: str, ranges: list[tuple[int, int]]) -> None:
    parsed = shard_selection.parse_numbers(text)
    assert [(part[0], part[-1]) for part in parsed] == ranges


def test_a_huge_range_of_shards_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        (part,) = shard_selection.parse_numbers("0-99999999999")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(part) == 100_000_000_000
    assert peak < 2**20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "3-",
        "-3",
        "1;2",
        "1,,2",
        "1-2-3",
        "1e3",
        "0x3",
        "\u0663",
        "9" * 5000,
        "3-1",
        "," * 99,
    ],
)
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
