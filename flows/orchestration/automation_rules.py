"""Definitions of the automations: silent, failed and late flow runs of this project.

All of them match the flows of this project by name, because a server may have flow runs of others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.orchestration.deployments import FLOWS

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.events.schemas.automations import Automation, AutomationCore

TAG = "distill"  # of every automation that `distill automations` makes
SILENT = "distill: silent runs have crashed"
FAILED = "distill: a run has failed"
LATE = "distill: a run is late"
NAMES = (SILENT, FAILED, LATE)
EARLIER = "silent flow runs have crashed"  # made from a file of earlier versions, with a trigger
# and an action of the same meaning for every flow run of the server
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = tuple(
    f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")
)
STARTS = tuple(
    f"prefect.flow-run.{state}" for state in ("Pending", "Running", "AwaitingConcurrencySlot")
)
BODY = "{{ flow.name }}/{{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}\n"


@dataclass(frozen=True)
class Rules:
    """Settings of the automations."""

    silent_seconds: float = 90.0  # without a heartbeat; workers send one every 30 s
    late_seconds: float = 600.0  # after Prefect has marked a run as late
    block: UUID | None = None  # that sends notifications; None: states change, nobody is told


def automations(rules: Rules) -> tuple[AutomationCore, ...]:
    """Return the automations that a server should have; without a block, only the first."""
    silent = {
        "type": "change-flow-run-state",
        "state": "CRASHED",
        "message": (
            f"No heartbeat for {rules.silent_seconds:g} s. `distill resume RUN` computes what is "
            "missing."
        ),
    }
    wanted = [
        _automation(
            SILENT,
            "A machine that is lost with its driver leaves a flow run that stays Running and "
            "blocks its deployment.",
            _absence(after=[HEARTBEAT], expect=(HEARTBEAT, *ENDS), seconds=rules.silent_seconds),
            silent,
        )
    ]
    if rules.block is not None:
        failed = _trigger(
            "Reactive", expect=("prefect.flow-run.Failed", "prefect.flow-run.Crashed")
        )
        late = _absence(
            after=["prefect.flow-run.Late"], expect=(*STARTS, *ENDS), seconds=rules.late_seconds
        )
        wanted += [
            _automation(
                FAILED,
                "Tells that a run has failed or crashed, with the reason.",
                failed,
                _notification(rules.block, "distill: {{ flow_run.name }} has failed", BODY),
            ),
            _automation(
                LATE,
                "Tells that no process has taken a run whose time has come.",
                late,
                _notification(
                    rules.block,
                    "distill: {{ flow_run.name }} is late",
                    f"{BODY}No process has taken it. Check the worker or `distill serve`.",
                ),
            ),
        ]
    return tuple(wanted)


def is_ours(found: Automation) -> bool:
    """Return whether this project made an automation, whatever its name is."""
    return (TAG in found.tags and found.name in NAMES) or is_of_earlier_version(found)


def is_of_earlier_version(found: Automation) -> bool:
    """Return whether an automation was made from the file of earlier versions."""
    states = [getattr(action, "state", None) for action in found.actions]
    return found.name == EARLIER and [str(getattr(s, "value", s)) for s in states] == ["CRASHED"]


def _automation(
    name: str, description: str, trigger: dict[str, Any], action: dict[str, Any]
) -> AutomationCore:
    from prefect.events.schemas.automations import AutomationCore

    return AutomationCore.model_validate(
        {
            "name": name,
            "description": f"{description} Made by `distill automations`.",
            "tags": [TAG],
            "trigger": trigger,
            "actions": [action],
        }
    )


def _absence(*, after: Iterable[str], expect: Iterable[str], seconds: float) -> dict[str, Any]:
    """Return a trigger that fires if nothing that is expected follows an event in time."""
    return _trigger("Proactive", expect=expect) | {"after": list(after), "within": seconds}


def _trigger(posture: str, *, expect: Iterable[str]) -> dict[str, Any]:
    return {
        "type": "event",
        "posture": posture,
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)},
        "for_each": ["prefect.resource.id"],
        "expect": list(expect),
        "threshold": 1,
    }


def _notification(block: UUID, subject: str, body: str) -> dict[str, Any]:
    return {
        "type": "send-notification",
        "block_document_id": str(block),
        "subject": subject,
        "body": body,
    }
