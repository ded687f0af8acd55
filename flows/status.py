"""What is done: runs, stages, failed shards; from markers and manifests alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from distill_core.errors import ConfigError
from distill_core.storage.markers import StageShelf
from distill_core.storage.store import Store
from flows import planning
from tasks.plans import JobPlan, shard_name
from tasks.runs import Run, open_run
from tasks.stages import STAGES, StageStatus, stage_status

Only = dict[str, list[str]]  # stage -> the shards to run; a stage that is not named runs whole


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    run: str
    preset: str
    stages: tuple[StageStatus, ...]

    @property
    def complete(self) -> bool:
        """Return whether every stage is."""
        return all(stage.complete for stage in self.stages)

    @property
    def first_missing(self) -> StageStatus | None:
        """Return the first stage that lacks something."""
        return next((stage for stage in self.stages if not stage.complete), None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able tree."""
        return {
            "run": self.run,
            "preset": self.preset,
            "complete": self.complete,
            "stages": [asdict(stage) for stage in self.stages],
        }


def run_status(run: Run) -> RunStatus:
    """Return how far a run is; a run that was never started is simply empty."""
    stages = tuple(stage_status(run, stage) for stage in STAGES)
    return RunStatus(run.name, run.config.preset, stages)


def every_run(store: Store) -> tuple[RunStatus, ...]:
    """Return how far each run of a store is, by name."""
    return tuple(run_status(open_run(store, name)) for name in store.folders("runs"))


def overview(statuses: Sequence[RunStatus]) -> Table:
    """Return one row per run."""
    table = Table("run", "preset", *STAGES)
    for status in statuses:
        table.add_row(status.run, status.preset, *(_cell(stage) for stage in status.stages))
    return table


def details(status: RunStatus) -> Table:
    """Return one row per stage of one run."""
    table = Table("stage", "done", "total", "failed", "state", title=status.run)
    table.title_justify = "left"
    for stage in status.stages:
        total = "?" if stage.total is None else f"{stage.total:,}"
        table.add_row(
            stage.stage,
            f"{stage.done:,}",
            total,
            str(len(stage.failed) or "-"),
            _state(stage),
        )
    return table


def failures(status: RunStatus) -> list[str]:
    """Return one line per failed shard: where, after how many attempts, why."""
    return [
        f"{stage.stage}: {shard}: {why.get('attempts', '?')} attempts: {_reason(why)}"
        for stage in status.stages
        for shard, why in sorted(stage.failed.items())
    ]


def failed_only_of(status: RunStatus) -> Only:
    """Narrow the first incomplete stage to the shards that failed there.

    Raises:
        ConfigError: nothing failed there.
    """
    stage = status.first_missing
    if stage is None or not stage.failed:
        where = "the run is complete" if stage is None else f"no {stage.stage} shard has failed"
        raise ConfigError(
            f"runs/{status.run}: {where}, so --failed-only has nothing to do. "
            f"`distill resume {status.run}` runs what is missing."
        )
    return {stage.stage: sorted(stage.failed)}


def by_number(run: Run, text: str) -> Only:
    """Narrow recover and relabel to class shards named by their numbers in the plan.

    Args:
        run: its dataset must be ingested: the classes decide the plan.
        text: e.g. ``3,17-20``.

    Raises:
        ConfigError: not of that form, or no such shard.
    """
    shards = JobPlan(run).shards
    numbers = parse_numbers(text)
    if beyond := [number for number in numbers if number >= len(shards)]:
        raise ConfigError(
            f"--shards {text}: the plan of {run.name} has shards 0 to {len(shards) - 1}, "
            f"not {beyond[0]}."
        )
    sets = JobPlan(run).image_sets
    names = [shard_name(images, shards[number]) for number in numbers for images in sets]
    relabel = stage_status(run, "recover").complete
    return {"recover": names} | ({"relabel": _label_shards(run, names)} if relabel else {})


def selection(run: Run, *, failed_only: bool, shards: str | None) -> Only:
    """Return which shards a resume may run: all, those that failed, those with these numbers."""
    only: Only = failed_only_of(run_status(run)) if failed_only else {}
    return only if shards is None else narrowed(only, by_number(run, shards))


def narrowed(one: Only, other: Only) -> Only:
    """Return the shards that both selections allow."""
    both = {stage: sorted(set(one[stage]) & set(other[stage])) for stage in one.keys() & other}
    return one | other | both


def dry_run(run: Run, only: Only) -> list[str]:
    """Return one line per stage that would run: which shards, or how many by the plan."""
    return [
        line
        for stage in run_status(run).stages
        if not stage.complete
        for line in _would_run(run, stage, only.get(stage.stage))
    ]


def parse_numbers(text: str) -> list[int]:
    """Read ``3,17-20`` as [3, 17, 18, 19, 20].

    Raises:
        ConfigError: anything else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--shards {text}: {part!r} is not a number or a range such as 3-7.")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def _would_run(run: Run, stage: StageStatus, only: list[str] | None) -> list[str]:
    if stage.total is None or stage.stage == "ingest":
        planned = planning.shards_by_stage(planning.plan_run(run.config))[stage.stage]
        return [f"{stage.stage}: {planned} by the plan, fewer if the store has some already"]
    missing = missing_shards(run, stage.stage)
    chosen = missing if only is None else [shard for shard in missing if shard in only]
    return [
        f"{stage.stage}: {len(chosen)} of {stage.total}",
        *(f"  {s}" for s in chosen),
    ]


def missing_shards(run: Run, stage: str) -> list[str]:
    """Return the shards of a stage that have no marker, each once, in plan order."""
    done = StageShelf(run.store, stage).done()
    jobs = (job for part in JobPlan(run).jobs(stage).values() for job in part)
    return list(dict.fromkeys(job.shard for job in jobs if job.key not in done))


def _label_shards(run: Run, images: Sequence[str]) -> list[str]:
    """Return the label shards that describe some image shards."""
    jobs = (job for part in JobPlan(run).jobs("relabel").values() for job in part)
    return sorted({job.shard for job in jobs if job.shard.startswith(tuple(images))})


def _cell(stage: StageStatus) -> str:
    total = "?" if stage.total is None else str(stage.total)
    failed = f", {len(stage.failed)} failed" if stage.failed else ""
    return "done" if stage.complete else f"{stage.done}/{total}{failed}"


def _state(stage: StageStatus) -> str:
    if stage.complete:
        return "done"
    if stage.failed:
        return "failed shards"
    return "started" if stage.done else "not started"


def _reason(why: dict[str, Any]) -> str:
    """Return the first line of an error's text."""
    return (str(why.get("error", "")).splitlines() or ["no reason kept"])[0]
