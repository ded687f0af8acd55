"""Automations on a Prefect server: created, changed and removed by name, and read back.

`plan_changes` compares what a server has with what it should have; `apply` makes it so. Automations
of others are neither changed nor removed. A person's pause of an automation is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from distill_core.errors import ClusterError, ConfigError
from flows.orchestration import api
from flows.orchestration.automation_rules import (
    EARLIER,
    NAMES,
    Rules,
    automations,
    is_ours,
)

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import Automation, AutomationCore

Verb = Literal["create", "change", "delete", "keep"]
COMPARED = ("description", "tags", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")


@dataclass(frozen=True)
class Change:
    """The difference between one automation of a server and its definition."""

    verb: Verb
    name: str
    fields: tuple[str, ...] = ()  # that differ, e.g. ``trigger.within: 60.0 -> 90.0``
    paused: bool = False  # by a person; it stays paused


@dataclass(frozen=True)
class _Step:
    """A change with what is needed to make it."""

    change: Change
    found: Automation | None = None
    wanted: AutomationCore | None = None


def make(
    *,
    notify: str | None = None,
    rules: Rules = Rules(),
    remove: bool = False,
    dry_run: bool = False,
) -> tuple[Change, ...]:
    """Give the server of PREFECT_API_URL the automations that it should have.

    Args:
        notify: TYPE/NAME of a notification block; None: no notifications.
        rules: settings; the block is filled in here.
        remove: leave none of them.
        dry_run: change nothing.

    Returns:
        What was changed, or would be changed, one entry for each automation.

    Raises:
        ConfigError: no such block, a block that cannot notify, or a name that others use.
        ClusterError: the server cannot be reached, or did not store what was sent.
    """
    with api.client() as client:
        block = None if notify is None or remove else _block(client, notify)
        settings = Rules(rules.silent_seconds, rules.late_seconds, block)
        steps = _steps(client, () if remove else automations(settings))
        if not dry_run:
            for step in steps:
                _take(client, step)
        return tuple(step.change for step in steps)


def _steps(client: SyncPrefectClient, wanted: Sequence[AutomationCore]) -> list[_Step]:
    """Return what has to be done to each automation of ours.

    Raises:
        ConfigError: an automation of others has a name of ours.
    """
    by_name = {each.name: each for each in wanted}
    steps = []
    for name in (*NAMES, EARLIER):
        found = client.read_automations_by_name(name)
        ours = [each for each in found if is_ours(each)]
        target = by_name.get(name)
        if target is not None and len(ours) < len(found):
            raise ConfigError(
                f"Prefect: an automation named {name!r} exists that `distill automations` has not "
                "made. Rename it, and run this again."
            )
        if target is not None and ours:
            steps.append(_compared(ours[0], target))
        elif target is not None:
            steps.append(_Step(Change("create", name), wanted=target))
        surplus = ours if target is None else ours[1:]  # several of one name: each would act
        steps += [_Step(Change("delete", name), found=each) for each in surplus]
    return steps


def _compared(found: Automation, target: AutomationCore) -> _Step:
    paused = not found.enabled
    differing = tuple(
        line
        for field in COMPARED
        if getattr(found, field) != getattr(target, field)
        for line in _difference(field, *(_plain(each, field) for each in (found, target)))
    )
    verb: Verb = "change" if differing else "keep"
    target = target.model_copy(update={"enabled": found.enabled})
    return _Step(Change(verb, found.name, differing, paused), found, target)


def _plain(automation: AutomationCore, field: str) -> Any:
    return automation.model_dump(mode="json", include={field})[field]


def _difference(path: str, before: Any, after: Any) -> list[str]:
    """Return one line for each value that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in dict.fromkeys((*before, *after)) if key != "id"]
        pairs = [(f"{path}.{key}", before.get(key), after.get(key)) for key in keys]
        return [line for pair in pairs for line in _difference(*pair)]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after) == 1:
        return _difference(path, before[0], after[0])
    if isinstance(before, list) and isinstance(after, list):
        before, after = sorted(map(str, before)), sorted(map(str, after))
    return [] if before == after else [f"{path}: {before} -> {after}"]


def _take(client: SyncPrefectClient, step: _Step) -> None:
    """Make a change, and read back what the server has stored."""
    if step.change.verb == "delete" and step.found is not None:
        client.delete_automation(step.found.id)
    elif step.change.verb != "keep" and step.wanted is not None:
        if step.found is None:
            stored = client.create_automation(step.wanted)
        else:
            stored = step.found.id
            # As a whole: what is left out would be reset.
            client.update_automation(stored, _whole(step.wanted))
        _check_stored(client, stored, step.wanted)


def _whole(wanted: AutomationCore) -> AutomationCore:
    """Return an automation whose fields all count as set, so that all of them are sent."""
    names = type(wanted).model_fields.keys() - {"owner_resource"}
    return type(wanted).model_construct(names, **{name: getattr(wanted, name) for name in names})


def _check_stored(client: SyncPrefectClient, number: UUID, wanted: AutomationCore) -> None:
    stored = client.read_automation(number)
    fields = ("name", "enabled", *COMPARED)
    different = [f for f in fields if stored is None or getattr(stored, f) != getattr(wanted, f)]
    if different:
        raise ClusterError(
            f"automation {wanted.name!r}: Prefect stored other values of {', '.join(different)} "
            "than were sent. Check that no other command changes it, and run this one again."
        )


def _block(client: SyncPrefectClient, name: str) -> UUID:
    """Return the id of a notification block.

    Raises:
        ConfigError: there is none of this name, or it cannot notify.
    """
    documents = client.read_block_documents(include_secrets=False)
    known = {
        f"{each.block_type.slug}/{each.name}": each
        for each in documents
        if each.block_type is not None and each.block_schema is not None
    }
    able = [key for key, each in known.items() if "notify" in _capabilities(each)]
    if name in able:
        return known[name].id
    reason = "it cannot send notifications" if name in known else "no such block"
    raise ConfigError(
        f"--notify {name}: {reason}. Blocks that can: {', '.join(sorted(able)) or 'none'}. Make "
        "one on Prefect's page (Blocks), e.g. slack-webhook/NAME."
    )


def _capabilities(document: Any) -> Sequence[str]:
    return document.block_schema.capabilities or ()
