"""Status of runs, and of the drivers at work on them.

Only markers and manifests decide what is complete. The files that drivers write are advisory: they
name the shards that are running. Prefect's database is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from distill_core.environment import mixed
from distill_core.errors import ConfigError, DataError
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.run import Run, check_exists, read_run
from tasks.runs.drivers import DriverRecord, parse_time, read_drivers
from tasks.runs.stage_status import StageStatus, stage_status
from tasks.stages.plan import JobPlan
from tasks.stages.table import stages_of

RECENT = timedelta(hours=1)  # commits of the last hour make the rate


@dataclass(frozen=True)
class RunStatus:
    """The status of the stages of a run."""

    run: str
    preset: str
    stages: tuple[StageStatus, ...]  # without stages that have no shards
    problem: str = ""  # why the run cannot be read, in one line; then there are no stages

    @property
    def complete(self) -> bool:
        """Return whether every stage is complete."""
        return not self.problem and all(stage.complete for stage in self.stages)

    @property
    def has_manifest(self) -> bool:
        """Return whether every stage has its manifests, with or without missing shards."""
        return all(stage.has_manifest for stage in self.stages)

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the failed shards that later stages went on without, each once."""
        return tuple(dict.fromkeys(shard for stage in self.stages for shard in stage.missing))

    @property
    def mixed(self) -> dict[str, tuple[str, ...]]:
        """Return the versions and hardware in which its shards differ; see `environment`."""
        return mixed(each for stage in self.stages for each in stage.made_with)

    def nothing_to_do(self, allow_missing: int) -> bool:
        """Return whether a pass that allows this number of missing shards has nothing to do."""
        return all(stage.nothing_to_do(allow_missing) for stage in self.stages)

    @property
    def first_missing(self) -> StageStatus | None:
        """Return the first stage that is not complete."""
        return next((stage for stage in self.stages if not stage.complete), None)


def run_status(run: Run) -> RunStatus:
    """Return the status of a run; one that was never started has no complete shard.

    Raises:
        DataError: a record of the run or the index of its dataset is damaged.
    """
    plan = JobPlan(run)
    statuses = (stage_status(run, stage, plan) for stage in stages_of(run.config))
    stages = tuple(stage for stage in statuses if stage.total != 0 or not stage.complete)
    return RunStatus(run.name, run.config.preset, stages)


def every_run(store: Store) -> tuple[RunStatus, ...]:
    """Return the status of every run of a store, by name; a damaged run does not hide the others.

    Raises:
        ConfigError: there is no such store.
        StorageError: the store refused a request.
    """
    check_exists(store)
    names = (n for n in store.folders("runs") if store.exists(f"runs/{n}/run.yaml"))
    return tuple(_status_or_problem(store, name) for name in names)


def _status_or_problem(store: Store, name: str) -> RunStatus:
    try:
        return run_status(read_run(store, name))
    except (ConfigError, DataError) as error:
        return RunStatus(name, "?", (), problem=str(error))


@dataclass(frozen=True)
class Claim:
    """A shard that runs on a worker of a driver, according to the file of that driver."""

    shard: str
    driver: str
    since: str  # ISO 8601, UTC, by the clock of the driver


@dataclass(frozen=True)
class Activity:
    """The activity of one stage.

    A shard without a marker is *running* if the file of an active driver names it; a driver is
    active if it wrote its file less than a minute ago. It is *orphaned* if only the file of a
    driver that stopped writing names it, because that driver was killed or cut off from the store.
    The next resume runs orphaned shards like any missing shard. A driver that ends by itself, also
    by an error or an interrupt, removes the names of its shards from its file.
    """

    drivers: int = 0  # active drivers of this stage
    running: tuple[Claim, ...] = ()
    orphaned: tuple[str, ...] = ()
    shards_per_hour: float | None = None  # None: no active driver, or no recent commit
    eta_seconds: float | None = None
    worker_hours: float = 0.0  # of busy workers, failed attempts included
    gpu_hours: float = 0.0  # the same times the GPUs of a worker, which may be a fraction
    # Part of the time that workers were there in which they ran shards; None: not known
    busy: float | None = None
    requests: Mapping[str, int] = field(default_factory=dict)  # to buckets, by kind
    # By the files of the drivers, for a dataset whose parts are not recorded yet
    reported_total: int | None = None
    reported_done: int = 0

    @property
    def running_shards(self) -> int:
        """Return the number of running shards; two drivers may run the same one for a moment."""
        return len({claim.shard for claim in self.running})


@dataclass(frozen=True)
class RunActivity:
    """The activity of a run."""

    now: datetime
    stages: Mapping[str, Activity]
    drivers: tuple[DriverRecord, ...]

    @property
    def gpu_hours(self) -> float:
        """Return the GPU-hours of all stages."""
        return sum(stage.gpu_hours for stage in self.stages.values())


def run_activity(run: Run, stages: Iterable[StageStatus], *, now: datetime) -> RunActivity:
    """Return the activity of a run; reads the marker of every complete shard.

    Args:
        run: the run.
        stages: the status of its stages.
        now: the time in UTC, compared with the times in the drivers' files.
    """
    drivers = read_drivers(run)
    activities = {str(stage.stage): _stage_activity(run, stage, drivers, now) for stage in stages}
    return RunActivity(now, activities, drivers)


def _stage_activity(
    run: Run, stage: StageStatus, drivers: Sequence[DriverRecord], now: datetime
) -> Activity:
    active = [driver for driver in drivers if driver.is_alive(now)]
    running = _claims(stage, active)
    claimed = {claim.shard for claim in running}
    lost = _claims(stage, [driver for driver in drivers if driver.is_lost(now)])
    markers = [
        m for m in ShardStore(run.store, stage.stage.kind).markers(stage.keys) if m is not None
    ]
    name = str(stage.stage)
    current = [driver for driver in active if driver.stage == name and not stage.complete]
    rate = _rate(markers, current, now)
    left = None if stage.total is None else stage.total - stage.done
    total, done = None, 0
    if stage.total is None:
        total, done, rate = _reported(name, drivers, current)
        left = None if total is None else total - done
    return Activity(
        reported_total=total,
        reported_done=done,
        drivers=len(current),
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
        worker_hours=sum(d.worker_seconds.get(name, 0.0) for d in drivers) / 3600,
        gpu_hours=sum(d.gpu_seconds.get(name, 0.0) for d in drivers) / 3600,
        busy=_busy(name, drivers),
        requests=_requests(name, drivers),
    )


def _busy(stage: str, drivers: Iterable[DriverRecord]) -> float | None:
    """Return the part of the workers' time in a stage in which they ran shards."""
    counted = [each for each in drivers if each.present_seconds.get(stage, 0.0) > 0]
    there = sum(each.present_seconds[stage] for each in counted)
    spent = sum(each.worker_seconds.get(stage, 0.0) for each in counted)
    return min(1.0, spent / there) if there else None


def _requests(stage: str, drivers: Iterable[DriverRecord]) -> dict[str, int]:
    """Return the requests of a stage by kind, of all drivers together."""
    total = Counter[str]()
    for driver in drivers:
        total.update(driver.requests.get(stage, {}))
    return dict(total)


def _claims(stage: StageStatus, drivers: Iterable[DriverRecord]) -> tuple[Claim, ...]:
    """Return the shards of a stage that have no marker and that some drivers name."""
    pending = None if stage.total is None else set(stage.pending)
    return tuple(
        Claim(named.shard, driver.id, named.since)
        for driver in drivers
        for named in driver.running
        if named.stage == str(stage.stage) and (pending is None or named.shard in pending)
    )


def _reported(
    stage: str, drivers: Sequence[DriverRecord], current: Sequence[DriverRecord]
) -> tuple[int | None, int, float | None]:
    """Return the shards of a stage, those that are done and those per hour, by its drivers."""
    counts = [d for d in drivers if d.stage == stage and d.stage_total is not None]
    if not counts:
        return None, 0, None
    newest = max(counts, key=lambda driver: driver.updated)
    rates = [
        (driver.stage_done - driver.stage_done_before) / hours
        for driver in current
        if driver.stage_started and (hours := _hours(driver.stage_started, driver.updated)) > 0
    ]
    return newest.stage_total, max(d.stage_done for d in counts), sum(rates) or None


def _hours(begin: str, end: str) -> float:
    return (parse_time(end) - parse_time(begin)) / timedelta(hours=1)


def _rate(
    markers: Iterable[Marker], drivers: Iterable[DriverRecord], now: datetime
) -> float | None:
    """Return the shards per hour of recent commits, since a driver entered the stage."""
    begins = [parse_time(driver.stage_started) for driver in drivers if driver.stage_started]
    if not begins:
        return None
    begin = max(now - RECENT, min(begins))
    recent = sum(begin <= parse_time(marker.finished) <= now for marker in markers)
    hours = (now - begin) / timedelta(hours=1)
    return recent / hours if recent and hours > 0 else None
