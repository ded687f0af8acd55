"""The exit status of `distill trigger --wait`, by the last state of the flow run."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State, StateType

from flows.orchestration import api
from flows.orchestration.waiting import exit_code, wait

RAISED = "Flow run encountered an exception: "


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        (StateType.COMPLETED, None, 0),
        (StateType.FAILED, f"{RAISED}ShardsFailed: 2 shards failed", 1),
        (StateType.FAILED, f"{RAISED}ShardsPostponed: 2 shards failed", 75),
        (StateType.FAILED, f"{RAISED}distill_core.errors.StorageError: away", 75),
        (StateType.FAILED, f"{RAISED}StorageRefused: 403", 2),
        (StateType.FAILED, f"{RAISED}distill_core.errors.ConfigError: ipc = 0", 2),
        (StateType.FAILED, f"{RAISED}NotReady: the dataset is not ingested yet", 2),
        (StateType.FAILED, f"{RAISED}ZeroDivisionError: division by zero", 1),
        (StateType.CRASHED, "No heartbeat for 90 s.", 75),
        (StateType.CANCELLED, None, 1),
    ],
)
def test_waiting_ends_with_the_status_of_the_run(
    kind: StateType, message: str | None, code: int
) -> None:
    assert exit_code(State(type=kind, message=message)) == code


def test_the_end_of_a_run_is_one_line_of_printable_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = State(type=StateType.FAILED, message=f"{RAISED}DataError: a\n\t\x1b[2Jb")
    run = SimpleNamespace(name="birds", state=state)
    server = SimpleNamespace(read_flow_run=lambda flow_run: run)
    monkeypatch.setattr(api, "client", lambda: nullcontext(server))
    lines: list[str] = []
    assert wait(str(UUID(int=0)), lines.append) == 2
    assert lines == [f"birds: failed: {RAISED}DataError: a \\x1b[2Jb"]
