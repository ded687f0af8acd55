"""The times of a schedule: read from the command line, and computed by Prefect."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from distill_core.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule


def parse_cron(cron: str, timezone: str) -> CronSchedule:
    """Return the times of a schedule, as Prefect's client sends them.

    Raises:
        ConfigError: no such time zone, or no cron of five fields.
    """
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


def next_time(times: Any) -> datetime | None:
    """Return the next time of a schedule; only the class of Prefect's server computes it."""
    from prefect.server.schemas.schedules import CronSchedule

    if not hasattr(times, "cron"):
        return None
    dates = asyncio.run(CronSchedule(cron=times.cron, timezone=times.timezone).get_dates(1))
    return dates[0] if dates else None
