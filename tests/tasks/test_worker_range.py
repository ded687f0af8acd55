"""The number of workers: how it is written, and what it means with a cluster and without one."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from tasks.execution import Placement
from tasks.worker_range import AUTO_MOST, WorkerRange, parse_workers

CLUSTER = {"ray_address": "10.0.0.1:6379"}


@pytest.mark.parametrize(
    ("given", "cluster", "alone"),
    [
        (None, WorkerRange(None), WorkerRange(None)),
        ("", WorkerRange(None), WorkerRange(None)),
        (8, WorkerRange(8), WorkerRange(8)),
        ("8", WorkerRange(8), WorkerRange(8)),
        ("2:8", WorkerRange(8, 2), WorkerRange(8)),
        ("8:8", WorkerRange(8, 8), WorkerRange(8)),
        ("auto", WorkerRange(AUTO_MOST, 1), WorkerRange(None)),
    ],
)
def test_only_a_range_expects_nodes_to_join_and_only_a_cluster_has_them(
    given: Any, cluster: WorkerRange, alone: WorkerRange
) -> None:
    assert Placement(workers=given, **CLUSTER).worker_range == cluster  # type: ignore[arg-type]
    assert Placement(workers=given).worker_range == alone


@pytest.mark.parametrize(
    "wrong", [0, -1, "0", "8:2", "0:3", "2:", ":2", "1.5", 1.5, True, "many", "1:100001", "٣"]
)
def test_what_is_no_number_and_no_range_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="MIN:MAX"):
        Placement(workers=wrong)


def test_a_range_without_a_cluster_of_nodes_is_refused_with_local_processes() -> None:
    with pytest.raises(ValidationError, match="nodes join clusters only"):
        Placement(local=True, workers="1:4")
    assert Placement(local=True, workers=4).worker_range == WorkerRange(4)


@pytest.mark.parametrize(
    ("values", "are_valid"),
    [((8, "8", "2:8", "auto", "", None), True), ((0, 100_001, 1.5, "2:", "many"), False)],
)
def test_the_schema_of_a_form_refuses_what_the_settings_refuse(
    values: tuple[Any, ...], are_valid: bool
) -> None:
    schema = Placement.model_json_schema()["properties"]["workers"]
    for value in values:
        assert jsonschema.Draft202012Validator(schema).is_valid(value) == are_valid, value


def test_settings_that_are_stored_are_read_again() -> None:
    for workers in (None, 8, "2:8", "auto"):
        stored = Placement(workers=workers).model_dump(mode="json")
        assert stored["workers"] == workers
        assert Placement.model_validate(stored).workers == workers
    assert parse_workers("010") == 10
