"""Schedules: one per name, listed, paused, resumed, removed, and fired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_core.config.load import load_run
from distill_core.storage.store import Store
from tasks.run import open_run
from tests.support.pipeline import TINY
from tests.support.prefect_server import FILES, Operator
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

SUNDAYS = ("--cron", "0 3 * * 0", "--timezone", "Europe/Berlin")


def listed(operator: Operator) -> dict[str, dict[str, Any]]:
    """Return the schedules by name."""
    found = json.loads(operator.distill("schedule", "list", "--json"))
    return {one["name"]: one for one in found}


def scheduled_runs(operator: Operator, name: str) -> list[dict[str, Any]]:
    """Return the flow runs that a schedule has made, the earliest first."""
    found = operator.server.post("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
    return [run for run in found if (run["created_by"] or {}).get("display_value") == name]


def test_a_schedule_is_added_changed_paused_resumed_and_removed(deployed: Operator) -> None:
    deployed.distill("schedule", "digits-demo", "ipc=3", *SUNDAYS, "--name", "weekly")
    deployed.distill("schedule", "add", "digits-demo", "ipc=5", *SUNDAYS, "--name", "weekly")
    weekly = listed(deployed)["weekly"]
    assert (weekly["cron"], weekly["timezone"]) == ("0 3 * * 0", "Europe/Berlin")
    assert (weekly["preset"], weekly["series"], weekly["active"]) == ("digits-demo", "weekly", True)
    assert "T03:00:00+0" in weekly["next"]
    wait_until(lambda: scheduled_runs(deployed, "weekly"), "a planned run")
    planned = scheduled_runs(deployed, "weekly")[0]["parameters"]
    config = load_run("digits-demo", ["ipc=5"])
    assert planned["config"] == config.model_dump(mode="json")

    deployed.distill("schedule", "pause", "weekly")
    assert listed(deployed)["weekly"]["next"] is None
    assert scheduled_runs(deployed, "weekly") == []
    deployed.distill("schedule", "resume", "weekly")
    assert listed(deployed)["weekly"]["active"]
    deployed.distill("schedule", "remove", "weekly")
    assert "weekly" not in listed(deployed)


def test_a_missing_schedule_is_named(deployed: Operator) -> None:
    for verb in ("pause", "resume", "remove"):
        said = deployed.distill("schedule", verb, "monthly", code=2)
        assert "no such schedule" in said


def test_deploying_again_keeps_schedules(deployed: Operator) -> None:
    deployed.distill("schedule", "digits-demo", *SUNDAYS, "--name", "kept")
    deployed.prefect("deploy", "--all", "--prefect-file", str(FILES / "prefect.yaml"))
    assert listed(deployed)["kept"]["active"]
    deployed.distill("schedule", "remove", "kept")


def test_a_schedule_fires_a_redistillation_of_the_config_it_was_made_with(
    operator: Operator, store: Path
) -> None:
    overrides = (*TINY, "recover.steps=5")
    minutely = ("--cron", "* * * * *", "--name", "minutely", "--series", "often", "--local")
    operator.distill("schedule", "digits-demo", *overrides, *minutely)
    try:
        first = wait_until(lambda: scheduled_runs(operator, "minutely"), "a planned run")[0]["id"]
        state = operator.end_of(first)
    finally:
        operator.distill("schedule", "remove", "minutely")
    assert state["type"] == "COMPLETED", state
    assert open_run(Store(str(store)), "often-v0001").config == load_run("digits-demo", overrides)
    assert operator.server.get(f"/flow_runs/{first}")["name"] == "often"
