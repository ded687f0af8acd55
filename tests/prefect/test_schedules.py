"""Schedules: one per name, listed, paused, resumed, removed, and fired."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from distill_core.config.load import load_run
from distill_core.errors import StorageRefused
from distill_core.storage.store import Store
from flows.orchestration import schedule_settings
from tasks.run import open_run
from tests.support.pipeline import TINY
from tests.support.prefect_server import FILES, Operator
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

DEPLOYMENT = "new-version"
SUNDAYS = ("--cron", "0 3 * * 0", "--timezone", "Europe/Berlin")
SOON, EVERY = 8, 45  # seconds until a run is due, and between two of them


def listed(operator: Operator) -> dict[str, dict[str, Any]]:
    """Return the schedules by name."""
    found = json.loads(operator.distill("schedule", "list", "--json"))
    return {one["name"]: one for one in found}


def scheduled_runs(operator: Operator, name: str) -> list[dict[str, Any]]:
    """Return the flow runs that a schedule has made, the earliest first."""
    found = operator.server.post("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
    return [run for run in found if (run["created_by"] or {}).get("display_value") == name]


def place(operator: Operator, name: str) -> str:
    """Return the path of a schedule in the API."""
    found = operator.server.get(f"/deployments/name/redistill/{DEPLOYMENT}")
    (schedule,) = [one for one in found["schedules"] if one["slug"] == name]
    return f"/deployments/{found['id']}/schedules/{schedule['id']}"


def interval() -> dict[str, Any]:
    """Return times that are due soon."""
    return {"interval": EVERY, "anchor_date": (datetime.now(UTC) + timedelta(0, SOON)).isoformat()}


@contextmanager
def firing(operator: Operator, name: str) -> Iterator[None]:
    """Remove a schedule after a block, with the runs that it has planned."""
    try:
        yield
    finally:
        operator.distill("schedule", "remove", name)


def next_end(operator: Operator, name: str, seen: set[str]) -> dict[str, Any]:
    """Wait for the end of a run that a schedule has made since, and return the flow run."""

    def fresh() -> list[dict[str, Any]]:
        return [run for run in scheduled_runs(operator, name) if run["id"] not in seen]

    first = wait_until(fresh, "a planned run")[0]["id"]
    seen.add(first)
    operator.end_of(first)
    found: dict[str, Any] = operator.server.get(f"/flow_runs/{first}")
    return found


def test_a_schedule_is_added_changed_paused_resumed_and_removed(
    deployed: Operator, store: Path
) -> None:
    deployed.distill("schedule", "digits-demo", "ipc=3", *SUNDAYS, "--name", "weekly")
    deployed.distill("schedule", "add", "digits-demo", "ipc=5", *SUNDAYS, "--name", "weekly")
    weekly = listed(deployed)["weekly"]
    assert (weekly["cron"], weekly["timezone"]) == ("0 3 * * 0", "Europe/Berlin")
    assert (weekly["preset"], weekly["series"], weekly["active"]) == ("digits-demo", "weekly", True)
    assert (weekly["store"], weekly["problem"]) == (str(store), None)
    assert "T03:00:00+0" in weekly["next"]
    wait_until(lambda: scheduled_runs(deployed, "weekly"), "a planned run")
    assert "config" not in scheduled_runs(deployed, "weekly")[0]["parameters"]
    settings = schedule_settings.read(Store(str(store)), DEPLOYMENT, "weekly")
    assert settings.config == load_run("digits-demo", ["ipc=5"])

    deployed.distill("schedule", "pause", "weekly")
    assert listed(deployed)["weekly"]["next"] is None
    assert scheduled_runs(deployed, "weekly") == []
    deployed.distill("schedule", "resume", "weekly")
    assert listed(deployed)["weekly"] == weekly
    deployed.distill("schedule", "remove", "weekly")
    assert "weekly" not in listed(deployed)
    assert not [path for path in store.rglob("weekly*") if path.is_file()]


def test_a_schedule_whose_settings_cannot_be_deleted_is_removed_and_then_its_settings(
    deployed: Operator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.distill("schedule", "digits-demo", *SUNDAYS, "--name", "held")
    settings = store / schedule_settings.path_of(DEPLOYMENT, "held")

    def refuse(store: Store, path: str) -> None:
        raise StorageRefused(f"{store.uri(path)}: cannot be deleted (AccessDenied).")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", refuse)
        out, err = deployed.output("schedule", "remove", "held")
        assert out == "held: removed\n"
        assert err.startswith("distill: warning: schedule 'held': removed, but its settings remain")
        assert len(err.splitlines()) == 1
        assert "held" not in listed(deployed)
        refused = deployed.distill("schedule", "remove", "held", code=2)
        assert "cannot be deleted" in refused
    assert settings.is_file()
    deployed.distill("schedule", "remove", "held")
    assert not settings.exists()
    assert "no such schedule" in deployed.distill("schedule", "remove", "held", code=2)


def test_pausing_keeps_what_another_client_put_into_a_schedule(deployed: Operator) -> None:
    deployed.distill("schedule", "digits-demo", *SUNDAYS, "--name", "foreign")
    with firing(deployed, "foreign"):
        parameters = {"policy": "fine_tune"}
        deployed.server.patch(place(deployed, "foreign"), {"parameters": parameters})
        for verb in ("pause", "resume"):
            deployed.distill("schedule", verb, "foreign")
            found = deployed.server.get(f"/deployments/name/redistill/{DEPLOYMENT}")["schedules"]
            (kept,) = [one for one in found if one["slug"] == "foreign"]
            assert (kept["active"], kept["parameters"]) == (verb == "resume", parameters)


def test_a_missing_schedule_is_named(deployed: Operator) -> None:
    for verb in ("pause", "resume", "remove"):
        said = deployed.distill("schedule", verb, "monthly", code=2)
        assert "no such schedule" in said


def test_deploying_again_keeps_schedules(deployed: Operator) -> None:
    deployed.distill("schedule", "digits-demo", *SUNDAYS, "--name", "kept")
    deployed.prefect("deploy", "--all", "--prefect-file", str(FILES / "prefect.yaml"))
    assert listed(deployed)["kept"]["active"]
    deployed.distill("schedule", "remove", "kept")


def test_a_schedule_of_an_earlier_version_is_named_with_the_command_that_replaces_it(
    deployed: Operator,
) -> None:
    flow = "flows.orchestration.prefect_flow.redistill"
    file = ("--prefect-file", str(FILES / "prefect.yaml"))
    deployed.prefect("deploy", flow, "-n", "default", "--pool", "distill", *file)
    old = deployed.server.get("/deployments/name/redistill/default")["id"]
    config = load_run("digits-demo").model_dump(mode="json")
    entry = {
        "schedule": {"cron": "0 3 * * 0", "timezone": "UTC"},
        "slug": "nightly",
        "parameters": {"config": config, "series": "nightly"},
    }
    deployed.server.post(f"/deployments/{old}/schedules", [entry])
    _, warned = deployed.output("schedule", "list")
    (line,) = [line for line in warned.splitlines() if "redistill/default" in line]
    assert "schedules of an earlier version: nightly" in line
    assert "Make each again with `distill schedule PRESET" in line
    deployed.prefect("deployment", "delete", "redistill/default")
    assert "earlier version" not in deployed.output("schedule", "list")[1]


def test_a_schedule_fires_what_it_was_made_with_after_every_way_to_pause_it(
    operator: Operator, store: Path
) -> None:
    overrides, seen = (*TINY, "recover.steps=5"), set[str]()
    options = (*SUNDAYS, "--name", "toggled", "--series", "often", "--local")
    operator.distill("schedule", "digits-demo", *overrides, *options)
    with firing(operator, "toggled"):
        page = place(operator, "toggled")
        operator.server.patch(page, {"schedule": interval()})  # as the page edits times
        for verb in ("pause", "resume"):
            operator.distill("schedule", verb, "toggled")
        first = next_end(operator, "toggled", seen)
        assert first["state"]["type"] == "COMPLETED", first["state"]
        assert first["name"] == "toggled"
        version = open_run(Store(str(store)), "often-v0001")
        assert version.config == load_run("digits-demo", overrides)

        seen |= {run["id"] for run in scheduled_runs(operator, "toggled")}
        operator.server.patch(page, {"schedule": interval()})
        for active in (False, True):  # as the page switches
            operator.server.patch(page, {"active": active})
        second = next_end(operator, "toggled", seen)
        assert second["state"]["type"] == "COMPLETED", second["state"]
        assert open_run(Store(str(store)), "often-v0001").config == version.config


def test_a_schedule_without_its_settings_fails_with_the_command_that_makes_it_again(
    operator: Operator, store: Path
) -> None:
    operator.distill("schedule", "digits-demo", *SUNDAYS, "--name", "bare", "--local")
    with firing(operator, "bare"):
        Store(str(store)).delete(schedule_settings.path_of(DEPLOYMENT, "bare"))
        _, warned = operator.output("schedule", "list")
        assert "schedule 'bare' cannot start anything" in warned
        assert "has no settings there" in operator.distill("schedule", "resume", "bare", code=2)
        operator.server.patch(place(operator, "bare"), {"schedule": interval()})
        state = next_end(operator, "bare", set())["state"]
        assert state["type"] == "FAILED"
        assert (
            "Make it again: `distill schedule PRESET [KEY=VALUE ...] --name bare"
            in (state["message"])
        )
