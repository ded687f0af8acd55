"""Selection of the shards that a resume runs: all missing, those that failed, or by number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill_core.errors import ConfigError, shown
from flows.estimate import workload
from flows.estimate.counts import count_images
from flows.status.status import RunStatus, run_status
from tasks.run import Run
from tasks.runs.stage_status import StageStatus, stage_status
from tasks.stages.inputs import NotReady, shard_name, test_images_of
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.table import stages_of

# The shards to run by stage. A stage that is not named runs whole, and the pass ends at a stage
# that is named without shards.
ShardSelection = Mapping[str, Sequence[str]]
DIGITS = 12  # of the number of a shard


@dataclass(frozen=True)
class Intent:
    """The shards that a resume would run in one stage."""

    stage: str
    count: int | None  # of shards, an upper limit before they are known; None: not known yet
    total: int | None
    shards: tuple[str, ...] | None  # None: not known before earlier stages are complete

    def lines(self) -> list[str]:
        """Return the stage, and one line per shard."""
        if self.count is None:
            return [f"{self.stage}: not known before the dataset is ingested"]
        if self.shards is None:
            return [f"{self.stage}: {self.count} by the plan, fewer if the store has some already"]
        return [f"{self.stage}: {self.count} of {self.total}", *(f"  {s}" for s in self.shards)]


def selection(
    run: Run, *, failed_only: bool, shards: str | None, and_later: bool = False
) -> ShardSelection:
    """Return the shards that a resume may run; neither option: all that are missing.

    Args:
        run: a registered run.
        failed_only: only shards that failed.
        shards: only class shards with these numbers, e.g. ``3,17-20``.
        and_later: go on with the stages that come after those shards.

    Raises:
        ConfigError: no shard has failed, or wrong shard numbers.
    """
    check_numbers(shards, and_later=and_later)
    failed = failed_only_of(run_status(run)) if failed_only else {}
    if shards is None:
        return failed
    return narrowed(failed, by_number(run, shards, and_later=and_later))


def failed_only_of(status: RunStatus) -> ShardSelection:
    """Narrow the first incomplete stage to the shards that failed there.

    Raises:
        ConfigError: nothing failed there.
    """
    stage = status.first_missing
    if stage is None or not stage.failed:
        state = "the run is complete" if stage is None else f"no {stage.stage} shard has failed"
        raise ConfigError(
            f"runs/{status.run}: {state}, so --failed-only has nothing to do. Run "
            f"`distill resume {status.run}` to compute the missing shards."
        )
    return {str(stage.stage): sorted(stage.failed)}


def by_number(run: Run, text: str, *, and_later: bool = False) -> ShardSelection:
    """Narrow recover and relabel to class shards named by their numbers in the plan.

    Rounds before that of the first shard run whole, because its images need their student.

    Args:
        run: its dataset must be ingested, because the classes decide the plan.
        text: e.g. ``3,17-20``.
        and_later: go on with the stages that come after those shards, which run whole. Otherwise
            the pass ends there.

    Raises:
        ConfigError: not of that form, or no such shard.
    """
    ranges, plan = parse_numbers(text), JobPlan(run)
    shards = plan.shards
    if (last := max(part[-1] for part in ranges)) >= len(shards):
        raise ConfigError(
            f"--shards {text}: the plan of {run.name} has shards 0 to {len(shards) - 1}, "
            f"not {last}."
        )
    numbers = _expanded(ranges)
    names = [shard_name(images, shards[n]) for n in numbers for images in run.config.image_sets]
    rounds = [plan.round_of(shards[number]) for number in numbers]
    selection: dict[StageId, list[str]] = {}
    for stage in stages_of(run.config):
        if stage.last_round(run.config) < min(rounds):
            continue
        if stage.kind == "recover":
            selection[stage] = names
        elif stage.kind == "relabel" and stage_status(run, _images_of(stage)).has_manifest:
            selection[stage] = _label_shards(run, stage, names)
    later = [] if and_later else _later(run, [*selection], max(rounds))
    return {str(stage): part for stage, part in selection.items()} | dict.fromkeys(later, ())


def _later(run: Run, named: Sequence[StageId], last_round: int) -> list[str]:
    """Return the stages after those that make the shards of some rounds, the last one included."""
    stages = stages_of(run.config)
    makers = [stage for stage in named if stage.last_round(run.config) <= last_round]
    return [str(stage) for stage in stages[max(map(stages.index, makers)) + 1 :]]


def narrowed(first: ShardSelection, second: ShardSelection) -> ShardSelection:
    """Return the shards that both selections allow."""
    both = {
        stage: sorted({*first[stage]}.intersection(second[stage]))
        for stage in first.keys() & second.keys()
    }
    return {**first, **second, **both}


def check_numbers(shards: str | None, *, and_later: bool) -> None:
    """Refuse shard numbers that are none, and `and_later` without them.

    Raises:
        ConfigError: names the option.
    """
    if shards is not None:
        parse_numbers(shards)
    elif and_later:
        raise ConfigError("--and-later: goes with --shards only; other passes run all stages.")


def parse_numbers(text: str) -> tuple[range, ...]:
    """Read ``3,17-20`` as the ranges 3 to 3 and 17 to 20, which are not expanded.

    Raises:
        ConfigError: anything else.
    """
    return tuple(_parse_range(part.strip(), text) for part in text.split(","))


def _parse_range(part: str, text: str) -> range:
    match = re.fullmatch(rf"(\d{{1,{DIGITS}}})(?:-(\d{{1,{DIGITS}}}))?", part, re.ASCII)
    if match is None:
        raise ConfigError(
            f"--shards {text}: expected numbers and ranges such as 3-7, not {shown(part)}."
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ConfigError(f"--shards {text}: {shown(part)} runs backwards; write {last}-{first}.")
    return range(first, last + 1)


def _expanded(ranges: Sequence[range]) -> list[int]:
    """Return the numbers of some ranges, ascending, each once."""
    numbers: list[int] = []
    for part in sorted(ranges, key=lambda part: part.start):
        begin = max(part.start, numbers[-1] + 1) if numbers else part.start
        numbers.extend(range(begin, part.stop))
    return numbers


def intents(
    run: Run, status: RunStatus, selection: ShardSelection, *, allow_missing: int = 0
) -> list[Intent]:
    """Return the shards that each incomplete stage would run, in order of the stages."""
    return [
        _intent(run, stage, selection.get(str(stage.stage)))
        for stage in status.stages
        if not stage.complete
        and selection.get(str(stage.stage)) != ()
        and (str(stage.stage) in selection or not stage.nothing_to_do(allow_missing))
    ]


def intents_to_json(run: Run, intents: Sequence[Intent]) -> dict[str, Any]:
    """Return a JSON-able tree; `shards` is null where they are not known yet."""
    return {"run": run.name, "would_run": [asdict(intent) for intent in intents]}


def _intent(run: Run, stage: StageStatus, shards: Sequence[str] | None) -> Intent:
    only_inherited = bool(stage.missing) and not stage.pending  # shards that earlier stages lack
    if stage.total is None or only_inherited:
        planned = _expected(run)[str(stage.stage)]
        return Intent(str(stage.stage), planned, stage.total, None)
    chosen = tuple(shard for shard in stage.pending if shards is None or shard in shards)
    return Intent(str(stage.stage), len(chosen), stage.total, chosen)


def _expected(run: Run) -> dict[str, int | None]:
    """Return the number of shards that each stage of a run is expected to have."""
    try:
        images: int | None = test_images_of(run)
    except NotReady:
        images = count_images(run.config).test
    return workload.shards_by_stage(run.config, test_images=images)


def _images_of(relabel: StageId) -> StageId:
    """Return the stage that made the images of a relabel stage."""
    return StageId("recover", relabel.round)


def _label_shards(run: Run, stage: StageId, images: Sequence[str]) -> list[str]:
    """Return the shards of a relabel stage that hold labels of some image shards."""
    jobs = (job for part in JobPlan(run).jobs(stage).values() for job in part)
    return sorted({job.shard for job in jobs if job.shard.startswith(tuple(images))})
