"""Schedules of re-distillation: entries of the deployment `redistill`, each under a name."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from distill_core.errors import ConfigError
from flows.orchestration import api
from flows.orchestration.deployments import Parameters, completed, deployment
from flows.runs.options import DEFAULT_DEPLOYMENT

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
    next: datetime | None  # when it fires; None while paused


def default_name(preset: str) -> str:
    """Return the name of a preset's schedule, where none is said."""
    return re.sub(r"[^a-z0-9]+", "-", preset.lower()).strip("-")


def put(
    name: str, cron: str, timezone: str, said: Parameters, *, on: str = DEFAULT_DEPLOYMENT
) -> Entry:
    """Add a schedule, or change the one of this name; it is active afterwards.

    Args:
        name: letters, digits and dashes.
        cron: five fields, e.g. ``0 3 * * 0``: Sundays at three.
        timezone: e.g. UTC or Europe/Berlin; summer time is honoured.
        said: parameters of each run; what is left out is the deployment's own.
        on: the deployment's name.

    Raises:
        ConfigError: a wrong name, cron or time zone, no such deployment, or wrong parameters.
        ClusterError: the server cannot be reached.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ConfigError(f"schedule {name!r}: use lowercase letters, digits and dashes.")
    when = _cron(cron, timezone)
    with api.client() as client:
        found = deployment(client, FLOW, on)
        parameters = completed(found, said)
        old = {one.slug: one for one in client.read_deployment_schedules(found.id)}.get(name)
        if old is None:
            _create(client, found, name, when, parameters)
        else:
            client.update_deployment_schedule(
                found.id, old.id, active=True, schedule=when, parameters=parameters
            )
        return _entry(_named(client, found, name))


def every(*, on: str = DEFAULT_DEPLOYMENT) -> tuple[Entry, ...]:
    """Return the schedules by name.

    Raises:
        ConfigError: no such deployment.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        found = deployment(client, FLOW, on)
        entries = map(_entry, client.read_deployment_schedules(found.id))
        return tuple(sorted(entries, key=lambda entry: entry.name))


def switch(name: str, *, active: bool, on: str = DEFAULT_DEPLOYMENT) -> None:
    """Pause a schedule, or let it go on; what already runs is left alone.

    Raises:
        ConfigError: no such deployment or schedule.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        found = deployment(client, FLOW, on)
        one = _named(client, found, name)
        client.update_deployment_schedule(found.id, one.id, active=active)


def remove(name: str, *, on: str = DEFAULT_DEPLOYMENT) -> None:
    """Remove a schedule; what already runs is left alone.

    Raises:
        ConfigError: no such deployment or schedule.
        ClusterError: the server cannot be reached.
    """
    with api.client() as client:
        found = deployment(client, FLOW, on)
        client.delete_deployment_schedule(found.id, _named(client, found, name).id)


def _cron(cron: str, timezone: str) -> CronSchedule:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        ZoneInfo(timezone)
    except (ValueError, OSError, KeyError):
        raise ConfigError(
            f"--timezone {timezone}: no such time zone. Say UTC, or e.g. Europe/Berlin."
        ) from None
    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValueError:
        raise ConfigError(
            f"--cron {cron!r}: expected minute, hour, day, month and weekday, e.g. '0 3 * * 0'."
        ) from None


def _create(
    client: SyncPrefectClient,
    found: DeploymentResponse,
    name: str,
    when: CronSchedule,
    parameters: dict[str, Any],
) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    made = DeploymentScheduleCreate(schedule=when, slug=name, parameters=parameters)
    client.create_deployment_schedules(found.id, [made])


def _named(client: SyncPrefectClient, found: DeploymentResponse, name: str) -> DeploymentSchedule:
    schedules = {one.slug or "": one for one in client.read_deployment_schedules(found.id)}
    if name not in schedules:
        known = ", ".join(sorted(schedules)) or "none"
        raise ConfigError(f"schedule {name!r}: no such schedule. There are: {known}.")
    return schedules[name]


def _entry(one: DeploymentSchedule) -> Entry:
    said, when = one.parameters, one.schedule
    preset = (said.get("config") or {}).get("preset") or said.get("preset") or ""
    return Entry(
        name=one.slug or str(one.id),
        preset=preset,
        series=said.get("series") or preset,
        store=said.get("store", ""),
        cron=getattr(when, "cron", type(when).__name__),
        timezone=getattr(when, "timezone", None) or "UTC",
        active=one.active,
        next=_next(when) if one.active else None,
    )


def _next(when: Any) -> datetime | None:
    """Return when a schedule fires next; only the server's own class knows."""
    from prefect.server.schemas.schedules import CronSchedule

    if not hasattr(when, "cron"):
        return None
    dates = asyncio.run(CronSchedule(cron=when.cron, timezone=when.timezone).get_dates(1))
    return dates[0] if dates else None
