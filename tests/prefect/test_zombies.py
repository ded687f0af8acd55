"""Silent, failed and late runs: automations on a server, and what they do when they fire.

The tests after the first one change the automations, which the first one waits for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.orchestration.automation_rules import EARLIER, FAILED, LATE, NAMES, SILENT, TAG
from tests.support.prefect_server import Operator
from tests.support.waiting import wait_until
from tests.support.webhook import receiver

pytestmark = pytest.mark.slow


def automations(operator: Operator) -> list[dict[str, Any]]:
    """Return the automations of the server."""
    found: list[dict[str, Any]] = operator.server.post("/automations/filter", {})
    return found


def plain(operator: Operator, name: str = SILENT) -> dict[str, Any]:
    """Return the only automation of a name, as it can be sent again."""
    (found,) = [each for each in automations(operator) if each["name"] == name]
    trigger = {
        key: sorted(value) if isinstance(value, list) else value
        for key, value in found["trigger"].items()
        if key != "id"
    }
    kept = {key: value for key, value in found.items() if key not in ("id", "created", "updated")}
    return kept | {"trigger": trigger}


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


def test_automations_are_made_once_changed_by_name_and_others_are_left_alone(
    deployed: Operator,
) -> None:
    assert deployed.distill("automations").startswith(f"unchanged: {SILENT}\n")
    before = plain(deployed)
    others = [before | {"name": "of others"}, before | {"name": "other", "tags": ["ops"]}]
    for each in (*others, before, before | {"name": EARLIER, "tags": []}):
        deployed.server.post("/automations/", each)
    shown = deployed.distill("automations", "--crashed-after", "60", "--dry-run")
    assert [line.split(":")[0] for line in shown.splitlines()[:4]] == [
        "change",
        "  trigger.within",
        "  actions.message",
        "remove",
    ]
    assert "trigger.within: 90.0 -> 60.0" in shown
    assert len(automations(deployed)) == 5
    deployed.distill("automations", "--crashed-after", "60")
    assert plain(deployed)["trigger"]["within"] == 60.0
    number = next(each["id"] for each in automations(deployed) if each["name"] == SILENT)
    deployed.server.patch(f"/automations/{number}", {"enabled": False})
    assert "paused, and stays so" in deployed.distill("automations")
    assert plain(deployed) == before | {"enabled": False}
    deployed.distill("automations", "--remove")
    assert sorted(each["name"] for each in automations(deployed)) == ["of others", "other"]
    for each in others:
        assert plain(deployed, each["name"])["actions"] == each["actions"]
    deployed.server.post("/automations/", before | {"tags": []})
    refused = deployed.distill("automations", code=2)
    assert f"an automation named {SILENT!r} exists" in refused
    for each in automations(deployed):
        deployed.server.request("DELETE", f"/automations/{each['id']}")


def test_failed_and_late_runs_are_notified_through_a_block(
    operator: Operator, killed_run: str, store: Path
) -> None:
    assert killed_run  # of a deployment without a worker
    refused = operator.distill("automations", "--notify", "custom-webhook/ops", code=2)
    assert "no such block. Blocks that can: none" in refused
    with receiver() as hook:
        with operator.settings():
            from prefect.blocks.notifications import CustomWebhookNotificationBlock
            from prefect.blocks.system import Secret

            data = {"subject": "{{subject}}", "body": "{{body}}"}
            CustomWebhookNotificationBlock(name="ops", url=hook.url, json_data=data).save("ops")
            Secret(value="x").save("word")
        refused = operator.distill("automations", "--notify", "secret/word", code=2)
        assert "cannot send notifications. Blocks that can: custom-webhook/ops" in refused
        operator.distill("automations", "--notify", "custom-webhook/ops", "--late-after", "10")
        assert {each["name"] for each in automations(operator) if TAG in each["tags"]} == {*NAMES}
        where = ("--deployment", "silent", "--store", str(store), "--local")
        late = operator.trigger("digits-demo", "--name", "waiting", *where)
        asked = operator.ask("resume", run="no-such-run", execution={"local": True})
        assert operator.end_of(asked.json()["id"])["type"] == "FAILED"
        subjects = {"distill: no-such-run has failed", "distill: waiting is late"}
        wait_until(
            lambda: subjects <= {each["subject"] for each in hook.received},
            "both notifications",
            seconds=120,
        )
        bodies = {each["subject"]: each["body"] for each in hook.received}
        assert "no run named 'no-such-run'" in bodies["distill: no-such-run has failed"]
        assert late in bodies["distill: waiting is late"]
        assert "No process has taken it" in bodies["distill: waiting is late"]
        operator.cancel(late)
    shown = operator.distill("automations")
    assert [f"removed: {name}" in shown for name in (SILENT, FAILED, LATE)] == [False, True, True]
