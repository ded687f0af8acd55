"""Schedules of re-distillation: named entries of the deployment `redistill`."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from distill_core.errors import ConfigError
from flows.orchestration import api
from flows.orchestration.deployments import find
from flows.orchestration.parameters import Parameters, completed

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.client.schemas.schedules import CronSchedule

FLOW = "redistill"


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


def default_name(preset: str) -> str:
    """Return the name of a preset's schedule if none is given."""
    return re.sub(r"[^a-z0-9]+", "-", preset.lower()).strip("-")


def put(name: str, cron: str, timezone: str, parameters: Parameters, *, deployment: str) -> Entry:
    """Add a schedule, or change the one of this name, and activate it.

    Args:
        name: letters, digits and dashes.
        cron: five fields, e.g. ``0 3 * * 0``: Sundays at three.
        timezone: e.g. UTC or Europe/Berlin, with its daylight saving time.
        parameters: of each run; the deployment supplies those that are left out.
        deployment: name of the deployment.

    Raises:
        ConfigError: a wrong name, cron or time zone, no such deployment, or wrong parameters.
        ClusterError: the server cannot be reached.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ConfigError(f"schedule {name!r}: use lowercase letters, digits and dashes.")
    schedule = _cron(cron, timezone)
    with api.client() as client:
        target = find(client, FLOW, deployment)
        checked = completed(target, parameters)
        previous = _by_name(client, target).get(name)
        if previous is None:
            _create(client, target, name, schedule, checked)
        else:
            client.update_deployment_schedule(
                target.id, previous.id, active=True, schedule=schedule, parameters=checked
            )
        return _entry(_named(client, target, name))


def every(*, deployment: str) -> tuple[Entry, ...]:
    """Return the schedules, sorted by name.

    Raises:
        ConfigError: no such deployment.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        target = find(client, FLOW, deployment)
        entries = map(_entry, client.read_deployment_schedules(target.id))
        return tuple(sorted(entries, key=lambda entry: entry.name))


def switch(name: str, *, active: bool, deployment: str) -> None:
    """Pause or activate a schedule; runs that have started continue.

    Raises:
        ConfigError: no such deployment or schedule.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        target = find(client, FLOW, deployment)
        schedule = _named(client, target, name)
        client.update_deployment_schedule(target.id, schedule.id, active=active)


def remove(name: str, *, deployment: str) -> None:
    """Remove a schedule; runs that have started continue.

    Raises:
        ConfigError: no such deployment or schedule.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        target = find(client, FLOW, deployment)
        client.delete_deployment_schedule(target.id, _named(client, target, name).id)


def _cron(cron: str, timezone: str) -> CronSchedule:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        ZoneInfo(timezone)
    except (ValueError, OSError, KeyError):
        raise ConfigError(
            f"--timezone {timezone}: no such time zone. Use UTC or a name such as Europe/Berlin."
        ) from None
    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValueError:
        raise ConfigError(
            f"--cron {cron!r}: expected minute, hour, day, month and weekday, e.g. '0 3 * * 0'."
        ) from None


def _create(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    name: str,
    schedule: CronSchedule,
    parameters: dict[str, Any],
) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    entry = DeploymentScheduleCreate(schedule=schedule, slug=name, parameters=parameters)
    client.create_deployment_schedules(deployment.id, [entry])


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


def _entry(schedule: DeploymentSchedule) -> Entry:
    parameters, times = schedule.parameters, schedule.schedule
    preset = (parameters.get("config") or {}).get("preset") or parameters.get("preset") or ""
    return Entry(
        name=schedule.slug or str(schedule.id),
        preset=preset,
        series=parameters.get("series") or preset,
        store=parameters.get("store", ""),
        cron=getattr(times, "cron", type(times).__name__),
        timezone=getattr(times, "timezone", None) or "UTC",
        active=schedule.active,
        next=_next(times) if schedule.active else None,
    )


def _next(times: Any) -> datetime | None:
    """Return the next time of a schedule; only the class of Prefect's server computes it."""
    from prefect.server.schemas.schedules import CronSchedule

    if not hasattr(times, "cron"):
        return None
    dates = asyncio.run(CronSchedule(cron=times.cron, timezone=times.timezone).get_dates(1))
    return dates[0] if dates else None
