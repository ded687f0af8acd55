"""Status as tables for the terminal and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from distill_core.environment import describe_mixed
from flows import units
from flows.status.status import Activity, RunActivity, RunStatus
from tasks.runs.drivers import DriverRecord, parse_time
from tasks.runs.stage_status import StageStatus
from tasks.stages.table import STAGES

VERSION = 1  # of the JSON


def to_json(status: RunStatus, activity: RunActivity | None = None) -> dict[str, Any]:
    """Return a JSON-able tree, with the drivers at work if an activity is given."""
    activities = {} if activity is None else activity.stages
    tree = {
        "version": VERSION,
        "run": status.run,
        "preset": status.preset,
        "complete": status.complete,
        "problem": status.problem,
        "missing": list(status.missing),
        "mixed": {name: list(values) for name, values in status.mixed.items()},
        "stages": [_stage_json(stage, activities.get(str(stage.stage))) for stage in status.stages],
    }
    if activity is None:
        return tree
    drivers = [
        asdict(driver) | {"at_work": driver.is_alive(activity.now)} for driver in activity.drivers
    ]
    return tree | {"gpu_hours": round(activity.gpu_hours, 4), "drivers": drivers}


def overview(statuses: Sequence[RunStatus]) -> Table:
    """Return one row per run."""
    rows = [_by_kind(status) for status in statuses]
    kinds = [kind for kind in STAGES if any(kind in row for row in rows)] or list(STAGES)
    table = Table("run", "preset", *kinds)
    for status, row in zip(statuses, rows, strict=True):
        cells = (_cell(row[kind]) if kind in row else "-" for kind in kinds)
        table.add_row(status.run, status.preset, *cells)
    return table


def details(status: RunStatus, activity: RunActivity | None = None) -> RenderableType:
    """Return one row per stage of a run, and below it the drivers that matter now."""
    live = () if activity is None else ("running", "orphaned", "rate", "ETA", "GPU-h", "busy")
    table = Table("stage", "total", "done", "failed", *live, "state", title=status.run)
    table.title_justify = "left"
    for stage in status.stages:
        part = None if activity is None else activity.stages[str(stage.stage)]
        total, done = _counts(stage, part)
        table.add_row(
            str(stage.stage),
            "?" if total is None else f"{total:,}",
            f"{done:,}",
            str(len(stage.failed) or "-"),
            *(() if part is None else _live_cells(part)),
            _state(stage, part),
        )
    if activity is None:
        return table
    return Group(table, *_requests(activity), _drivers(activity))


def problems(statuses: Sequence[RunStatus]) -> list[str]:
    """Return one line per run that cannot be read."""
    return [f"damaged: {status.run}: {status.problem}" for status in statuses if status.problem]


def mixture(run: str, facts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a warning if the shards of a run were made in different environments."""
    if not facts:
        return []
    return [
        f"{run}: its shards were made with different versions or hardware ({describe_mixed(facts)})"
        ", so their rounding differs: they are valid, but one machine would make other bytes."
    ]


def failures(status: RunStatus) -> list[str]:
    """Return one line per failed shard: its stage, its attempts and its error."""
    return [
        f"{stage.stage}: {shard}: {why.get('attempts', '?')} attempts: {_reason(why)}"
        for stage in status.stages
        for shard, why in sorted(stage.failed.items())
    ]


def _by_kind(status: RunStatus) -> dict[str, StageStatus]:
    """Return the stages of a run by kind; of several rounds, the current one."""
    stages: dict[str, StageStatus] = {}
    for stage in status.stages:
        kind = stage.stage.kind
        if kind not in stages or stages[kind].complete:
            stages[kind] = stage
    return stages


def _stage_json(stage: StageStatus, activity: Activity | None) -> dict[str, Any]:
    total, done = _counts(stage, activity)
    tree = {
        "stage": str(stage.stage),
        "total": total,
        "done": done,
        "complete": stage.complete,
        "failed": stage.failed,
        "missing": list(stage.missing),
    }
    if activity is None:
        return tree
    return tree | {k: v for k, v in asdict(activity).items() if not k.startswith("reported_")}


def _counts(stage: StageStatus, activity: Activity | None) -> tuple[int | None, int]:
    """Return the shards of a stage, and those that are done, from the store or by its drivers."""
    if stage.total is None and activity is not None:
        return activity.reported_total, activity.reported_done
    return stage.total, stage.done


def _live_cells(activity: Activity) -> tuple[str, ...]:
    rate, eta = activity.shards_per_hour, activity.eta_seconds
    return (
        str(activity.running_shards or "-"),
        str(len(activity.orphaned) or "-"),
        "-" if rate is None else units.rate(rate / 3600, "shards"),
        "-" if eta is None else units.duration(eta),
        f"{activity.gpu_hours:,.2f}" if activity.gpu_hours else "-",
        "-" if activity.busy is None else f"{activity.busy:.0%}",
    )


def _requests(activity: RunActivity) -> list[str]:
    """Return a line about the requests to buckets, if there were any."""
    total = Counter[str]()
    for stage in activity.stages.values():
        total.update(stage.requests)
    by_kind = ", ".join(f"{total[kind]:,} {kind}" for kind in sorted(total))
    return [f"requests to buckets: {by_kind}"] if by_kind else []


def _drivers(activity: RunActivity) -> RenderableType:
    """Return the active drivers, and those that stopped writing and left orphaned shards."""
    orphaned = {shard for stage in activity.stages.values() for shard in stage.orphaned}
    shown = [
        driver
        for driver in activity.drivers
        if driver.is_alive(activity.now) or orphaned & {named.shard for named in driver.running}
    ]
    others = len(activity.drivers) - len(shown)
    if not shown:
        return f"no driver at work; {others} before"
    table = Table("driver", "host", "state", "stage", "running", "done", "workers", "work")
    table.caption, table.caption_justify = f"{others} drivers before" if others else "", "left"
    for driver in shown:
        table.add_row(*_driver_cells(driver, activity.now))
    return table


def _driver_cells(driver: DriverRecord, now: datetime) -> tuple[str, ...]:
    silence = units.duration((now - parse_time(driver.updated)).total_seconds())
    gpus = f" x {driver.gpus_per_worker:g} GPU" if driver.gpus_per_worker else ""
    return (
        driver.id,
        f"{driver.host}, pid {driver.pid}",
        "at work" if driver.is_alive(now) else f"silent for {silence}",
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
    return (str(why.get("error", "")).splitlines() or ["no error was recorded"])[0]
