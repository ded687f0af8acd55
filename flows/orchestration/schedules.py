"""Schedules of re-distillation: named entries of the deployment of `redistill`.

A schedule has no parameters. Its name leads to its settings: see `schedule_settings`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from distill_core.errors import ClusterError, ConfigError, DistillError, one_line
from distill_core.storage.store import Store
from flows.orchestration import api, schedule_settings
from flows.orchestration.cron import next_time, parse_cron
from flows.orchestration.deployments import EARLIER, find
from flows.orchestration.parameters import completed
from flows.orchestration.schedule_settings import ScheduleSettings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

FLOW = "redistill"
# What a change of a schedule sends, always all of it: Prefect 3.8 resets what is left out.
WRITTEN = ("active", "schedule", "parameters", "max_scheduled_runs", "slug")


@dataclass(frozen=True)
class Entry:
    """One schedule."""

    name: str
    preset: str
    series: str
    store: str
    cron: str
    timezone: str
    active: bool
    next: datetime | None  # None while it is paused
    problem: str | None = None  # why it cannot start anything


def default_name(preset: str) -> str:
    """Return the name of a preset's schedule if none is given."""
    return re.sub(r"[^a-z0-9]+", "-", preset.lower()).strip("-")


def put(
    name: str, cron: str, timezone: str, settings: ScheduleSettings, *, group: str | None
) -> Entry:
    """Add a schedule, or change the one of this name, and activate it.

    Args:
        name: letters, digits and dashes.
        cron: five fields, e.g. ``0 3 * * 0``: Sundays at three.
        timezone: e.g. UTC or Europe/Berlin, with its daylight saving time.
        settings: what it starts.
        group: of deployments; None: those without a group.

    Raises:
        ConfigError: a wrong name, cron or time zone, no such deployment, or wrong settings.
        StorageError: the store of the deployment cannot be written.
        ClusterError: the server cannot be reached, or did not store what was sent.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ConfigError(f"schedule {name!r}: use lowercase letters, digits and dashes.")
    times = parse_cron(cron, timezone)
    with api.client() as client:
        from prefect.client.schemas.actions import DeploymentScheduleCreate

        target = find(client, FLOW, group)
        completed(target, {"execution": settings.execution, "store": settings.store})
        previous = _by_name(client, target).get(name)
        # First, so that the schedule never starts a run without its settings.
        schedule_settings.write(_home(target), target.name, name, settings)
        if previous is None:
            new = DeploymentScheduleCreate(schedule=times, slug=name, parameters={})
            client.create_deployment_schedules(target.id, [new])
            previous = _named(client, target, name)
        changes = {"active": True, "schedule": times, "parameters": {}}
        stored = _write(client, target, previous.model_copy(update=changes))
        return _entry(target, stored)


def every(*, group: str | None) -> tuple[Entry, ...]:
    """Return the schedules, sorted by name.

    Raises:
        ConfigError: no such deployment.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        target = find(client, FLOW, group)
        entries = [_entry(target, each) for each in client.read_deployment_schedules(target.id)]
        return tuple(sorted(entries, key=lambda entry: entry.name))


def earlier(*, group: str | None) -> str | None:
    """Return a warning about schedules that an earlier version made; None: there are none.

    They are entries of a deployment of another name, and hold their config as parameters.
    """
    from prefect.exceptions import ObjectNotFound

    with api.client() as client:
        old = group or EARLIER
        try:
            target = client.read_deployment_by_name(f"{FLOW}/{old}")
        except ObjectNotFound:
            return None
        names = ", ".join(sorted(_by_name(client, target)))
        return names and (
            f"{FLOW}/{old}: schedules of an earlier version: {names}. Prefect loses their config "
            "when they are paused. Make each again with `distill schedule PRESET [KEY=VALUE ...] "
            f"--name NAME`, then run `prefect deployment delete {FLOW}/{old}`."
        )


def switch(name: str, *, active: bool, group: str | None) -> None:
    """Pause or activate a schedule; runs that have started continue.

    Raises:
        ConfigError: no such deployment or schedule, or one to activate has no settings.
        ClusterError: the server cannot be reached, or did not store what was sent.
    """
    with api.client() as client:
        target = find(client, FLOW, group)
        schedule = _named(client, target, name)
        if active and not schedule.parameters:
            schedule_settings.read(_home(target), target.name, name)
        _write(client, target, schedule.model_copy(update={"active": active}))


def remove(name: str, *, group: str | None) -> str | None:
    """Remove a schedule and its settings; runs that have started continue.

    A store that refuses the deletion does not keep a schedule alive. The next call with the same
    name deletes the settings that remained.

    Returns:
        A warning about settings that remain; None: nothing remains.

    Raises:
        ConfigError: no such deployment, or neither a schedule nor settings of this name.
        StorageError: only settings are left, and the store refuses to delete them.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        target = find(client, FLOW, group)
        has_store = bool((target.parameters or {}).get("store"))
        if name not in _by_name(client, target):
            if not (has_store and schedule_settings.exist(_home(target), target.name, name)):
                _named(client, target, name)  # raises
            schedule_settings.delete(_home(target), target.name, name)
            return None
        client.delete_deployment_schedule(target.id, _named(client, target, name).id)
        if not has_store:
            return None
        return schedule_settings.try_delete(_home(target), target.name, name)


def _home(deployment: DeploymentResponse) -> Store:
    """Return the store of a deployment, which holds the settings of its schedules.

    Raises:
        ConfigError: the deployment has none.
    """
    if not (store := (deployment.parameters or {}).get("store")):
        raise ConfigError(
            f"Prefect: the deployment {FLOW}/{deployment.name} has no store, which would hold the "
            "settings of its schedules. Serve or deploy it with one (`distill serve --store`, "
            "DISTILL_STORE)."
        )
    return Store(store)


def _write(
    client: SyncPrefectClient, deployment: DeploymentResponse, schedule: DeploymentSchedule
) -> DeploymentSchedule:
    """Write a whole schedule in place of the one with its id, read it back, and return it.

    Raises:
        ClusterError: the server stored something else.
    """
    values = {name: getattr(schedule, name) for name in WRITTEN}
    client.update_deployment_schedule(deployment.id, schedule.id, **values)
    stored = _named(client, deployment, schedule.slug or "")
    different = [name for name in WRITTEN if getattr(stored, name) != values[name]]
    if different:
        raise ClusterError(
            f"schedule {schedule.slug!r}: Prefect stored other values of {', '.join(different)} "
            "than were sent. Check that no other command changes it, and run this one again."
        )
    return stored


def _by_name(
    client: SyncPrefectClient, deployment: DeploymentResponse
) -> dict[str, DeploymentSchedule]:
    schedules = client.read_deployment_schedules(deployment.id)
    return {schedule.slug or "": schedule for schedule in schedules}


def _named(
    client: SyncPrefectClient, deployment: DeploymentResponse, name: str
) -> DeploymentSchedule:
    schedules = _by_name(client, deployment)
    if name not in schedules:
        known = ", ".join(sorted(schedules)) or "none"
        raise ConfigError(f"schedule {name!r}: no such schedule. Known schedules: {known}.")
    return schedules[name]


def _entry(deployment: DeploymentResponse, schedule: DeploymentSchedule) -> Entry:
    name, times = schedule.slug or str(schedule.id), schedule.schedule
    settings, problem = None, None
    try:
        settings = schedule_settings.read(_home(deployment), deployment.name, name)
    except DistillError as error:
        problem = one_line(error)
    return Entry(
        name=name,
        preset="" if settings is None else settings.config.preset,
        series="" if settings is None else settings.series,
        store=(settings and settings.store) or (deployment.parameters or {}).get("store", ""),
        cron=getattr(times, "cron", type(times).__name__),
        timezone=getattr(times, "timezone", None) or "UTC",
        active=schedule.active,
        next=next_time(times) if schedule.active else None,
        problem=problem,
    )
