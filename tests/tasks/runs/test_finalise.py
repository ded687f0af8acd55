"""The error of a stage whose shards were given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.errors import (
    ClusterError,
    DataError,
    DivergedError,
    ShardsFailed,
    ShardsPostponed,
    StorageError,
    StorageRefused,
)
from tasks.pools.failures import Failure
from tasks.runs.finalise import raise_failures
from tasks.stages.names import StageId
from tests.support.fabricate import finished_run


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([StorageError("503"), ClusterError("killed")], ShardsPostponed),
        ([StorageError("503"), DivergedError("nan")], ShardsFailed),
        ([StorageRefused("expired")], ShardsFailed),
        ([StorageError("503"), DataError("truncated")], DataError),
    ],
    ids=["all may pass", "one will not", "refused", "data"],
)
def test_the_error_of_failed_shards_is_retryable_if_every_cause_may_pass(
    tmp_path: Path, errors: list[Exception], expected: type[Exception]
) -> None:
    failed = {f"s{n}": Failure(3, error, "") for n, error in enumerate(errors)}
    with pytest.raises(expected) as raised:
        raise_failures(finished_run(tmp_path), StageId("recover"), failed)
    assert type(raised.value) is expected
