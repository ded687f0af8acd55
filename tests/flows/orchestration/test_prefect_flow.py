"""The Prefect flow, as far as it can be tested without a server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.cache_policies import NO_CACHE

from distill_core.errors import (
    ClusterError,
    ConfigError,
    ShardsFailed,
    ShardsPostponed,
    StorageError,
)
from distill_core.storage.store import Store
from flows.orchestration import artifacts, prefect_flow
from tasks.stages.names import StageId
from tasks.stages.table import STAGES
from tests.support.series import ONE_SHARD, Series, dataset, fabricated, small


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StorageError("timed out"), True),
        (ClusterError("node lost"), True),
        (ConfigError("typo"), False),
        (ShardsFailed("two"), False),
        (ShardsPostponed("two"), True),
        (ZeroDivisionError("a bug"), False),
    ],
)
def test_a_stage_is_retried_only_if_its_error_allows_it(error: Exception, again: bool) -> None:
    assert prefect_flow.worth_retrying(None, None, SimpleNamespace(data=error)) is again


def test_every_stage_is_a_task_without_cache_or_results() -> None:
    stages = map(StageId, STAGES)
    for stage in (*map(prefect_flow.task_of, stages), prefect_flow.report):
        assert stage.persist_result is False
        assert stage.cache_policy is NO_CACHE
        assert stage.retries == 1


def test_a_deployment_validates_the_whole_config() -> None:
    schema = prefect_flow.distill.parameters
    assert schema.required == ["store"]
    assert "RecoverConfig" in schema.definitions


@pytest.mark.parametrize(
    ("names", "key"), [(("Run_1", "recover"), "run-1-recover"), (("a.b", "x"), "a-b-x")]
)
def test_artifact_keys_are_lowercase_with_dashes(names: tuple[str, ...], key: str) -> None:
    assert artifacts.artifact_key(*names) == key


def test_a_source_without_changes_ends_the_flow_before_any_task(tmp_path: Path) -> None:
    config, store = small(dataset(tmp_path / "data"), *ONE_SHARD), Store(str(tmp_path / "store"))
    Series(store)(config, complete=fabricated)
    state = prefect_flow.redistill.fn(
        config=config, store=store.url, series="small", if_changed=True
    )
    assert state is not None
    assert state.is_completed()
    assert str(state.message).startswith("small-v0001: neither the source nor the settings")
