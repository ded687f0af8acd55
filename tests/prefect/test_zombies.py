"""A machine that dies with its worker: Prefect marks its flow run as crashed."""

from __future__ import annotations

import pytest

from tests.support.prefect_server import Operator

pytestmark = pytest.mark.slow


def test_a_flow_run_without_heartbeats_is_marked_crashed_and_frees_its_slot(
    operator: Operator, killed_run: str
) -> None:
    state = operator.end_of(killed_run)
    assert state["type"] == "CRASHED"
    assert "No heartbeat" in state["message"]
    place = operator.server.get("/deployments/name/distill/new-run-silent")[
        "global_concurrency_limit"
    ]
    assert place["active_slots"] == 0
