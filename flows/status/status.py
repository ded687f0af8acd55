"""How far runs are: from markers and manifests alone, with who is at work by the drivers' files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from distill_core.storage.store import Store
from flows import units
from flows.status.activity import Activity, RunActivity
from tasks.run import Run, open_run
from tasks.runs.drivers import DriverRecord, parse_time
from tasks.runs.stage_status import StageStatus, stage_status
from tasks.stages.table import STAGES, stages_of

VERSION = 1  # of the JSON


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    run: str
    preset: str
    stages: tuple[StageStatus, ...]  # without those that have no shards

    @property
    def complete(self) -> bool:
        """Return whether every stage is."""
        return all(stage.complete for stage in self.stages)

    @property
    def has_manifest(self) -> bool:
        """Return whether every stage has its results, with or without shards that were given up."""
        return all(stage.has_manifest for stage in self.stages)

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the shards that stages went on without, each once."""
        return tuple(dict.fromkeys(shard for stage in self.stages for shard in stage.missing))

    def nothing_to_do(self, allow_missing: int) -> bool:
        """Return whether a pass that allows so many missing shards has nothing to do."""
        return all(stage.nothing_to_do(allow_missing) for stage in self.stages)

    @property
    def first_missing(self) -> StageStatus | None:
        """Return the first stage that lacks something."""
        return next((stage for stage in self.stages if not stage.complete), None)


def run_status(run: Run) -> RunStatus:
    """Return how far a run is; a run that was never started is simply empty."""
    every = (stage_status(run, stage) for stage in stages_of(run.config))
    stages = tuple(stage for stage in every if stage.total != 0 or not stage.complete)
    return RunStatus(run.name, run.config.preset, stages)


def every_run(store: Store) -> tuple[RunStatus, ...]:
    """Return how far each run of a store is, by name."""
    names = (n for n in store.folders("runs") if store.exists(f"runs/{n}/run.yaml"))
    return tuple(run_status(open_run(store, name)) for name in names)


def to_json(status: RunStatus, seen: RunActivity | None = None) -> dict[str, Any]:
    """Return a JSON-able tree, with who is at work where that was looked up."""
    activities = {} if seen is None else seen.stages
    tree = {
        "version": VERSION,
        "run": status.run,
        "preset": status.preset,
        "complete": status.complete,
        "missing": list(status.missing),
        "stages": [_stage_json(stage, activities.get(str(stage.stage))) for stage in status.stages],
    }
    if seen is None:
        return tree
    drivers = [asdict(one) | {"at_work": one.is_alive(seen.now)} for one in seen.drivers]
    return tree | {"gpu_hours": round(seen.gpu_hours, 4), "drivers": drivers}


def overview(statuses: Sequence[RunStatus]) -> Table:
    """Return one row per run."""
    rows = [_by_kind(status) for status in statuses]
    kinds = [kind for kind in STAGES if kind != "select" or any(kind in row for row in rows)]
    table = Table("run", "preset", *kinds)
    for status, row in zip(statuses, rows, strict=True):
        cells = (_cell(row[kind]) if kind in row else "-" for kind in kinds)
        table.add_row(status.run, status.preset, *cells)
    return table


def details(status: RunStatus, seen: RunActivity | None = None) -> RenderableType:
    """Return one row per stage of one run, and below it the drivers that matter now."""
    live = () if seen is None else ("running", "orphaned", "rate", "ETA", "GPU-h")
    table = Table("stage", "total", "done", "failed", *live, "state", title=status.run)
    table.title_justify = "left"
    for stage in status.stages:
        activity = None if seen is None else seen.stages[str(stage.stage)]
        table.add_row(
            str(stage.stage),
            "?" if stage.total is None else f"{stage.total:,}",
            f"{stage.done:,}",
            str(len(stage.failed) or "-"),
            *(() if activity is None else _live_cells(activity)),
            _state(stage, activity),
        )
    return table if seen is None else Group(table, _drivers(seen))


def failures(status: RunStatus) -> list[str]:
    """Return one line per failed shard: where, after how many attempts, why."""
    return [
        f"{stage.stage}: {shard}: {why.get('attempts', '?')} attempts: {_reason(why)}"
        for stage in status.stages
        for shard, why in sorted(stage.failed.items())
    ]


def _by_kind(status: RunStatus) -> dict[str, StageStatus]:
    """Return the stages of a run by kind; of several rounds, the one that the run is in."""
    found: dict[str, StageStatus] = {}
    for stage in status.stages:
        kind = stage.stage.kind
        if kind not in found or found[kind].complete:
            found[kind] = stage
    return found


def _stage_json(stage: StageStatus, activity: Activity | None) -> dict[str, Any]:
    tree = {
        "stage": str(stage.stage),
        "total": stage.total,
        "done": stage.done,
        "complete": stage.complete,
        "failed": stage.failed,
        "missing": list(stage.missing),
    }
    return tree if activity is None else tree | asdict(activity)


def _live_cells(activity: Activity) -> tuple[str, ...]:
    rate, eta = activity.shards_per_hour, activity.eta_seconds
    return (
        str(activity.running_shards or "-"),
        str(len(activity.orphaned) or "-"),
        "-" if rate is None else units.rate(rate / 3600, "shards"),
        "-" if eta is None else units.duration(eta),
        f"{activity.gpu_hours:,.2f}" if activity.gpu_hours else "-",
    )


def _drivers(seen: RunActivity) -> RenderableType:
    """Return the drivers that are at work, or fell silent over a shard that nobody took up."""
    orphaned = {shard for stage in seen.stages.values() for shard in stage.orphaned}
    shown = [
        driver
        for driver in seen.drivers
        if driver.is_alive(seen.now) or orphaned & {named.shard for named in driver.running}
    ]
    others = len(seen.drivers) - len(shown)
    if not shown:
        return f"no driver at work; {others} before"
    table = Table("driver", "where", "state", "stage", "running", "done", "workers", "work")
    table.caption, table.caption_justify = f"{others} drivers before" if others else "", "left"
    for driver in shown:
        table.add_row(*_driver_cells(driver, seen))
    return table


def _driver_cells(driver: DriverRecord, seen: RunActivity) -> tuple[str, ...]:
    silence = units.duration((seen.now - parse_time(driver.updated)).total_seconds())
    gpus = f" x {driver.gpus_per_worker:g} GPU" if driver.gpus_per_worker else ""
    return (
        driver.id,
        f"{driver.host}, pid {driver.pid}",
        "at work" if driver.is_alive(seen.now) else f"silent for {silence}",
        driver.stage or "-",
        ", ".join(named.shard for named in driver.running) or "-",
        f"{driver.done:,}",
        f"{driver.workers}{gpus}",
        units.duration(sum(driver.worker_seconds.values())),
    )


def _cell(stage: StageStatus) -> str:
    if stage.missing:
        return f"done, {len(stage.missing)} missing"
    total = "?" if stage.total is None else str(stage.total)
    failed = f", {len(stage.failed)} failed" if stage.failed else ""
    return "done" if stage.complete else f"{stage.done}/{total}{failed}"


def _state(stage: StageStatus, activity: Activity | None) -> str:
    if stage.complete:
        return "done"
    if activity is not None and activity.drivers:
        return "running"
    if stage.missing:
        return f"done without {units.shards(len(stage.missing))}"
    if stage.failed:
        return "failed shards"
    return "started" if stage.done else "not started"


def _reason(why: dict[str, Any]) -> str:
    """Return the first line of an error's text."""
    return (str(why.get("error", "")).splitlines() or ["no reason kept"])[0]
