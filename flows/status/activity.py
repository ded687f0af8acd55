"""Who works on a run, on what, how fast, for how long still; from markers and drivers' own files.

Prefect's database is never asked. What drivers say is advisory: it names who is at work, and never
decides what is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tasks.runs.drivers import DriverRecord, parse_time, read_drivers
from tasks.runs.stage_status import StageStatus

RECENT = timedelta(hours=1)  # commits of the last hour make the rate


@dataclass(frozen=True)
class Claim:
    """A shard that a driver at work says is on one of its workers."""

    shard: str
    driver: str
    since: str  # ISO 8601, UTC, by the driver's clock


@dataclass(frozen=True)
class Activity:
    """What happens in one stage.

    A shard without a marker is *running* when a driver that is at work (it wrote its file less than
    a minute ago) names it, and *orphaned* when only a driver that fell silent does: killed, or cut
    off from the store. An orphaned shard is simply missing, the next resume runs it. A driver that
    ends in order, by an error or an interrupt too, takes back what it named.
    """

    drivers: int = 0  # that are at work on this stage
    running: tuple[Claim, ...] = ()
    orphaned: tuple[str, ...] = ()
    shards_per_hour: float | None = None  # None: nobody is at work, or nothing was committed lately
    eta_seconds: float | None = None
    worker_hours: float = 0.0  # that drivers of this run kept workers busy, in vain or not
    gpu_hours: float = 0.0  # the same on GPUs; a worker that holds a part of one counts as that

    @property
    def running_shards(self) -> int:
        """Return how many shards run; two drivers may have the same one for a moment."""
        return len({claim.shard for claim in self.running})


@dataclass(frozen=True)
class RunActivity:
    """What happens in a run."""

    now: datetime
    stages: Mapping[str, Activity]
    drivers: tuple[DriverRecord, ...]

    @property
    def gpu_hours(self) -> float:
        """Return the GPU-hours of all stages."""
        return sum(stage.gpu_hours for stage in self.stages.values())


def run_activity(run: Run, stages: Iterable[StageStatus], *, now: datetime) -> RunActivity:
    """Return what happens in a run; reads the marker of every shard that is done.

    Args:
        run: the run.
        stages: how far its stages are.
        now: in UTC; drivers' clocks are compared with it.
    """
    drivers = read_drivers(run)
    found = {str(stage.stage): _stage_activity(run, stage, drivers, now) for stage in stages}
    return RunActivity(now, found, drivers)


def _stage_activity(
    run: Run, stage: StageStatus, drivers: Sequence[DriverRecord], now: datetime
) -> Activity:
    at_work = [driver for driver in drivers if driver.is_alive(now)]
    running = _claims(stage, at_work)
    claimed = {claim.shard for claim in running}
    lost = _claims(stage, [driver for driver in drivers if driver.is_lost(now)])
    markers = [
        m for m in ShardStore(run.store, stage.stage.kind).markers(stage.keys) if m is not None
    ]
    here = [driver for driver in at_work if driver.stage == str(stage.stage) and not stage.complete]
    rate = _rate(markers, here, now)
    left = None if stage.total is None else stage.total - stage.done
    return Activity(
        drivers=len(here),
        running=running,
        orphaned=tuple(
            dict.fromkeys(
                claim.shard
                for claim in lost
                if claim.shard not in claimed and claim.shard not in stage.failed
            )
        ),
        shards_per_hour=rate,
        eta_seconds=None if rate is None or left is None else 3600 * left / rate,
        worker_hours=sum(one.worker_seconds.get(str(stage.stage), 0.0) for one in drivers) / 3600,
        gpu_hours=sum(one.gpu_seconds.get(str(stage.stage), 0.0) for one in drivers) / 3600,
    )


def _claims(stage: StageStatus, drivers: Iterable[DriverRecord]) -> tuple[Claim, ...]:
    """Return what some drivers name of a stage's shards without a marker."""
    pending = set(stage.pending)
    return tuple(
        Claim(named.shard, driver.id, named.since)
        for driver in drivers
        for named in driver.running
        if named.stage == str(stage.stage) and named.shard in pending
    )


def _rate(
    markers: Iterable[Marker], drivers: Iterable[DriverRecord], now: datetime
) -> float | None:
    """Return the shards per hour that were committed lately, while some driver was at the stage."""
    begins = [parse_time(driver.stage_started) for driver in drivers if driver.stage_started]
    if not begins:
        return None
    begin = max(now - RECENT, min(begins))
    recent = sum(begin <= parse_time(marker.finished) <= now for marker in markers)
    hours = (now - begin) / timedelta(hours=1)
    return recent / hours if recent and hours > 0 else None
